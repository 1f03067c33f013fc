"""A bottleneck beside a sub-layer of a transformer block."""
from mmengine.model import BaseModule
from torch import Tensor, nn


class ParallelAdapter(BaseModule):
    """Wraps a sub-layer and adds a bottleneck MLP of the same input to its output (VoP, baselines of section 4.1).

    It takes the place of a block's ``attn`` or ``mlp`` and is called as that is. The up-projection starts at zero:
    a new adapter changes nothing.

    Args:
        inner (nn.Module): The sub-layer: an ``nn.MultiheadAttention``, which returns a tuple, or an MLP.
        width (int): Channels in and out (C).
        hidden (int): Channels of the bottleneck. Defaults to 64.
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
        """The sub-layer's output plus the bottleneck's. [N, T, C] -> [N, T, C], or a tuple that starts with it"""
        beside = self.up(self.act(self.down(x)))
        out = self.inner(x, *args, **kwargs)
        return (out[0] + beside, *out[1:]) if isinstance(out, tuple) else out + beside
