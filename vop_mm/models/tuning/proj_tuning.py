"""Projection tuning."""
from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from .base import TuningStrategy


@TUNING.register_module()
class ProjTuning(TuningStrategy):
    """Trains the two projections into the shared space.

    Args:
        logit_scale (bool): Train CLIP's logit scale as well. Defaults to False.
    """

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        return model.clip.projections
