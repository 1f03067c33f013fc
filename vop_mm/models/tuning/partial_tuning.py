"""Partial tuning."""
from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from .base import TuningStrategy


@TUNING.register_module()
class PartialTuning(TuningStrategy):
    """Trains the last blocks of both encoders.

    Args:
        num_blocks (int): How many of each encoder. Defaults to 1.
        logit_scale (bool): Train CLIP's logit scale as well. Defaults to False.
    """

    def __init__(self, num_blocks: int = 1, logit_scale: bool = False) -> None:
        super().__init__(logit_scale)
        self.num_blocks = num_blocks

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        for blocks in (model.clip.vision_blocks, model.clip.text_blocks):
            for block in blocks[len(blocks) - self.num_blocks:]:
                yield from block.parameters()
