"""Full fine-tuning."""
from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from .base import TuningStrategy


@TUNING.register_module()
class FullTuning(TuningStrategy):
    """Trains everything, CLIP and its logit scale included."""

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        return model.parameters()
