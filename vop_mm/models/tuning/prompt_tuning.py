"""Prompt tuning: what was put around CLIP trains, CLIP stays as it is."""
from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from .base import TuningStrategy


@TUNING.register_module()
class PromptTuning(TuningStrategy):
    """Trains every parameter that isn't CLIP's: prompts, and whatever else a config adds around the frozen backbone.

    Args:
        logit_scale (bool): Train CLIP's logit scale as well. Defaults to False.
    """

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        clip = {id(p) for p in model.clip.parameters()}
        return (p for p in model.parameters() if id(p) not in clip)
