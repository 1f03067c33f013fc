"""VoP^P: prompts for each frame position in a video."""
import torch
from torch import Tensor, nn

from vop_mm.registry import PROMPTS

from .base import LayerContext, PromptProvider


@PROMPTS.register_module()
class PositionPrompt(PromptProvider):
    """Learnable tokens from a table with a row per frame position, separate for every layer (VoP, section 3.3).

    Args:
        num_tokens (int): Number of tokens per layer and position. Defaults to 4.
        init_std (float): Standard deviation of the normal initialization. Defaults to 0.02.
        **kwargs: ``layers`` and the arguments filled in by the retriever; see :class:`PromptProvider`.
    """

    def __init__(self, num_tokens: int = 4, *, init_std: float = 0.02, **kwargs) -> None:
        super().__init__(num_tokens, **kwargs)
        self.weight = nn.Parameter(torch.empty(len(self.layers), self.num_frames, num_tokens, self.width))
        nn.init.normal_(self.weight, std=init_std)

    def tokens(self, context: LayerContext) -> Tensor:
        num_frames = context.cls.shape[1]
        if num_frames > self.num_frames:
            raise ValueError(f'{num_frames} frames, but this model has prompts for {self.num_frames} positions')
        return self.weight[self.row(context.layer), :num_frames][None]  # [F, P, C] -> [1, F, P, C]
