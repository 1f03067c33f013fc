"""Adapter tuning: a bottleneck in every block."""
from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from ..adapters import ParallelAdapter
from .base import TuningStrategy


@TUNING.register_module()
class AdapterTuning(TuningStrategy):
    """Puts a bottleneck in parallel to the attention or the MLP of every block of both encoders, and trains those.

    Args:
        beside (str): ``'attn'`` or ``'mlp'``: Adapter^ATTN, Adapter^FFN.
        hidden (int): Channels of the bottleneck. Defaults to 64.
        logit_scale (bool): Train CLIP's logit scale as well. Defaults to False.

    Raises:
        ValueError: Another ``beside``.
    """

    def __init__(self, beside: str, hidden: int = 64, logit_scale: bool = False) -> None:
        super().__init__(logit_scale)
        if beside not in ('attn', 'mlp'):
            raise ValueError(f"beside must be 'attn' or 'mlp', got {beside!r}")
        self.beside = beside
        self.hidden = hidden

    def prepare(self, model: nn.Module) -> None:
        """Wrap the sub-layers."""
        clip = model.clip
        clip.fingerprint  # noqa: B018 - taken of CLIP alone
        for blocks, width in ((clip.vision_blocks, clip.vision_width), (clip.text_blocks, clip.text_width)):
            for block in blocks:
                setattr(block, self.beside, ParallelAdapter(getattr(block, self.beside), width, self.hidden))

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        for module in model.modules():
            if isinstance(module, ParallelAdapter):
                yield from module.down.parameters()
                yield from module.up.parameters()
