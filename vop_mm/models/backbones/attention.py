"""Self-attention whose memory grows linearly with the number of tokens."""
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Self-attention equivalent to ``nn.MultiheadAttention`` that always uses ``scaled_dot_product_attention``.

    Without gradients, ``nn.MultiheadAttention`` takes its own fast path, which on a CPU materializes the whole
    attention matrix. It also takes key masks only as [N * heads, T, T], which mixed precision copies in full.
    The parameters, their names, and the call signature stay the same.

    Args:
        attn (nn.MultiheadAttention): Attention whose parameters are reused; ``batch_first``, without dropout.
    """

    def __init__(self, attn: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attn.num_heads
        self.in_proj_weight, self.in_proj_bias = attn.in_proj_weight, attn.in_proj_bias
        self.out_proj = attn.out_proj

    def forward(self, x: Tensor, key: Tensor | None = None, value: Tensor | None = None, need_weights: bool = False,
                attn_mask: Tensor | None = None) -> tuple[Tensor, None]:
        """Compute self-attention.

        Args:
            x (Tensor): Tokens [N, T, C].
            key (Tensor, optional): Ignored: the block passes ``x`` again.
            value (Tensor, optional): Ignored, like ``key``.
            need_weights (bool): Ignored: no weights are returned.
            attn_mask (Tensor, optional): Added to the logits; any shape that broadcasts to [N, heads, T, T].

        Returns:
            tuple[Tensor, None]: Output [N, T, C], and None in place of the weights.
        """
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each [N, heads, T, C / heads]
        y = F.scaled_dot_product_attention(q, k, v, None if attn_mask is None else attn_mask.to(q.dtype))
        return self.out_proj(y.transpose(1, 2).flatten(2)), None  # [N, heads, T, C / heads] -> [N, T, C]
