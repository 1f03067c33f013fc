"""Adapter tuning: a bottleneck in every block."""
from collections.abc import Iterable

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import Parameter

from vop_mm.registry import TUNING

from .base import TuningStrategy


class ParallelAdapter(BaseModule):
    """Sub-layer with a parallel bottleneck MLP whose output is added (VoP, baselines of section 4.1).

    It replaces a block's ``attn`` or ``mlp`` and has the same call signature. The up-projection is initialized to zero:
    a new adapter changes nothing.

    Args:
        inner (nn.Module): The sub-layer: an ``nn.MultiheadAttention``, which returns a tuple, or an MLP.
        width (int): Number of input and output channels (C).
        hidden (int): Number of channels of the bottleneck. Defaults to 64.
    """

    def __init__(self, inner: nn.Module, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor | tuple:
        """Return the sum of sub-layer and bottleneck, [N, T, C] -> [N, T, C], or a tuple that starts with it."""
        beside = self.up(self.act(self.down(x)))
        out = self.inner(x, *args, **kwargs)
        return (out[0] + beside, *out[1:]) if isinstance(out, tuple) else out + beside


@TUNING.register_module()
class AdapterTuning(TuningStrategy):
    """Strategy that trains a bottleneck parallel to the attention or the MLP of every block of both encoders.

    Args:
        beside (str): ``'attn'`` for Adapter^ATTN or ``'mlp'`` for Adapter^FFN.
        hidden (int): Number of channels of the bottleneck. Defaults to 64.
        **kwargs: Arguments of :class:`TuningStrategy`.

    Raises:
        ValueError: Unknown value of ``beside``.
    """

    def __init__(self, beside: str, hidden: int = 64, **kwargs) -> None:
        super().__init__(**kwargs)
        if beside not in ('attn', 'mlp'):
            raise ValueError(f"beside must be 'attn' or 'mlp', got {beside!r}")
        self.beside = beside
        self.hidden = hidden

    def prepare(self, model: nn.Module) -> None:
        """Wrap the sub-layers."""
        backbone = model.backbone
        for tower in ('vision', 'text'):
            backbone.require_blocks(tower, 'AdapterTuning')
        for blocks, width in ((backbone.vision_blocks, backbone.vision_width),
                              (backbone.text_blocks, backbone.text_width)):
            for block in blocks:
                setattr(block, self.beside, ParallelAdapter(getattr(block, self.beside), width, self.hidden))

    def trainable(self, model: nn.Module) -> Iterable[Parameter]:
        for module in model.modules():
            if isinstance(module, ParallelAdapter):
                yield from module.down.parameters()
                yield from module.up.parameters()
