"""Bias tuning."""
from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from .base import TuningStrategy


@TUNING.register_module()
class BiasTuning(TuningStrategy):
    """Trains every bias term of CLIP: of linear layers, normalisations, and attention's input projection.

    Args:
        logit_scale (bool): Train CLIP's logit scale as well. Defaults to False.
    """

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        for module in model.clip.modules():
            own = (getattr(module, name, None) for name in ('bias', 'in_proj_bias'))
            yield from (p for p in own if isinstance(p, Parameter))
