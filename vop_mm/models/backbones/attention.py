"""Self-attention in memory that grows with the tokens, not with their square."""
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """What ``nn.MultiheadAttention`` computes over one sequence, always through ``scaled_dot_product_attention``.

    Without gradients ``nn.MultiheadAttention`` leaves that function for a path of its own, which on a CPU holds the
    whole attention matrix; and it takes masks of keys only as [N * heads, T, T], which mixed precision copies in full.
    Parameters, their names, and what the block passes and gets back stay the same.

    Args:
        attn (nn.MultiheadAttention): Whose parameters to take over; ``batch_first``, without dropout.
    """

    def __init__(self, attn: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attn.num_heads
        self.in_proj_weight, self.in_proj_bias = attn.in_proj_weight, attn.in_proj_bias
        self.out_proj = attn.out_proj

    def forward(self, x: Tensor, key: Tensor | None = None, value: Tensor | None = None, need_weights: bool = False,
                attn_mask: Tensor | None = None) -> tuple[Tensor, None]:
        """Attend.

        Args:
            x (Tensor): Tokens [N, T, C].
            key (Tensor, optional): Not looked at: the block passes ``x`` again.
            value (Tensor, optional): As ``key``.
            need_weights (bool): Not looked at: there are no weights to return.
            attn_mask (Tensor, optional): Added to the logits, of any shape that broadcasts to [N, heads, T, T].

        Returns:
            tuple[Tensor, None]: [N, T, C], and nothing in the place of weights.
        """
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each [N, heads, T, C / heads]
        y = F.scaled_dot_product_attention(q, k, v, None if attn_mask is None else attn_mask.to(q.dtype))
        return self.out_proj(y.transpose(1, 2).flatten(2)), None  # [N, heads, T, C / heads] -> [N, T, C]
