"""Strategies that select among existing parameters."""
from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from .base import TuningStrategy


@TUNING.register_module()
class ZeroShot(TuningStrategy):
    """Strategy that trains nothing."""

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        return ()


@TUNING.register_module()
class FullTuning(TuningStrategy):
    """Strategy that trains all parameters of the model; takes no ``logit_scale``, which always trains."""

    def __init__(self) -> None:
        super().__init__(logit_scale=True)

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        return model.parameters()


@TUNING.register_module()
class PromptTuning(TuningStrategy):
    """Strategy that trains every parameter that isn't CLIP's: prompts and any other additions of a config."""

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        frozen = {id(p) for p in model.backbone.parameters()}
        return (p for p in model.parameters() if id(p) not in frozen)


@TUNING.register_module()
class ProjTuning(TuningStrategy):
    """Strategy that trains the two projections into the shared space.

    Towers that end with attention pooling (SigLIP's vision tower) have none.
    """

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        projections = list(model.backbone.projections)
        if not projections:
            raise ValueError(f'neither tower of {model.backbone.arch_name} has a projection that could train')
        return projections


@TUNING.register_module()
class BiasTuning(TuningStrategy):
    """Strategy that trains every bias of CLIP: in linear layers, normalizations and attention input projections.

    The bias of the logits (SigLIP) trains with the logit scale.
    """

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        for module in model.backbone.modules():
            for name, p in module.named_parameters(recurse=False):
                # bias, in_proj_bias, and q_bias and v_bias of timm's Eva
                if name.endswith('bias') and p is not model.backbone.logit_bias:
                    yield p


@TUNING.register_module()
class PartialTuning(TuningStrategy):
    """Strategy that trains the last blocks of both encoders.

    Args:
        num_blocks (int): Number of blocks of each encoder. Defaults to 1.
        **kwargs: Arguments of :class:`TuningStrategy`.
    """

    def __init__(self, num_blocks: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_blocks = num_blocks

    def prepare(self, model: nn.Module) -> None:
        """Check that both towers have blocks."""
        for tower in ('vision', 'text'):
            model.backbone.require_blocks(tower, 'PartialTuning')

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        for blocks in (model.backbone.vision_blocks, model.backbone.text_blocks):
            for block in blocks[len(blocks) - self.num_blocks:]:
                yield from block.parameters()
