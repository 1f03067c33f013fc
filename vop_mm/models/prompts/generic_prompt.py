"""Prompts of the base VoP, which are the same for every video and frame."""
import torch
from torch import Tensor, nn

from vop_mm.registry import PROMPTS

from .base import LayerContext, PromptProvider


@PROMPTS.register_module()
class GenericPrompt(PromptProvider):
    """Learnable tokens, separate for every layer, shared by all videos and frames (VoP, section 3.2).

    Args:
        num_tokens (int): Number of tokens per layer. Defaults to 8.
        init_std (float): Standard deviation of the normal initialization. Defaults to 0.02.
        **kwargs: ``layers`` and the arguments filled in by the retriever; see :class:`PromptProvider`.
    """

    def __init__(self, num_tokens: int = 8, *, init_std: float = 0.02, **kwargs) -> None:
        super().__init__(num_tokens, **kwargs)
        self.weight = nn.Parameter(torch.empty(len(self.layers), num_tokens, self.width))
        nn.init.normal_(self.weight, std=init_std)

    def tokens(self, context: LayerContext) -> Tensor:
        return self.weight[self.row(context.layer)][None, None]  # [P, C] -> [1, 1, P, C]
