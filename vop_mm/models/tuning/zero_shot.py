"""Zero-shot: CLIP as it comes."""
from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from .base import TuningStrategy


@TUNING.register_module()
class ZeroShot(TuningStrategy):
    """Trains nothing."""

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        return ()
