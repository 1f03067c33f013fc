"""Prompts mixed from a small bank, depending on the content of a frame."""
import torch
from torch import Tensor, nn

from vop_mm.models.prompts import LayerContext, PromptProvider
from vop_mm.registry import PROMPTS


@PROMPTS.register_module()
class BankPrompt(PromptProvider):
    """Tokens of each frame as a mixture of the entries of a learned bank, weighted by the frame's CLS token.

    Args:
        num_tokens (int): Number of tokens per layer and frame (P). Defaults to 4.
        bank_size (int): Number of entries of a layer's bank (N). Defaults to 8.
        init_std (float): Standard deviation of the normal initialization. Defaults to 0.02.
        **kwargs: ``layers`` and the arguments filled in by the retriever; see :class:`PromptProvider`.
    """

    def __init__(self, num_tokens: int = 4, *, bank_size: int = 8, init_std: float = 0.02, **kwargs) -> None:
        super().__init__(num_tokens, **kwargs)
        self.keys = nn.Parameter(torch.empty(len(self.layers), bank_size, self.width))
        self.bank = nn.Parameter(torch.empty(len(self.layers), bank_size, num_tokens, self.width))
        nn.init.normal_(self.keys, std=init_std)
        nn.init.normal_(self.bank, std=init_std)

    def tokens(self, context: LayerContext) -> Tensor:
        row = self.row(context.layer)
        weights = (context.cls @ self.keys[row].T).softmax(dim=-1)  # [B, F, C] -> [B, F, N]
        return torch.einsum('bfn,npc->bfpc', weights, self.bank[row])  # [B, F, P, C]
