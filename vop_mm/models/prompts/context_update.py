"""Context module that changes the CLS tokens instead of generating prompts."""
from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from vop_mm.registry import MIXERS, UPDATES

from .base import LayerContext, parse_layers


@UPDATES.register_module()
class ContextUpdate(BaseModule):
    """Update that adds the output of a context module to each frame's CLS token (VoP, ablation of section 4.3).

    The context module and the linear layer after it are shared by all layers. The linear layer is initialized to zero:
    a new module changes nothing.

    Args:
        width (int): Number of channels (C). Filled in by the retriever.
        depth (int): Number of layers of the tower. Filled in by the retriever.
        mixer (dict): Config of the context module. Defaults to ``dict(type='BiLSTM')``.
        layers (Sequence, optional): Layers to update, as in :class:`PromptProvider`. Defaults to every layer.
        num_frames (int): Ignored; filled in by the retriever.
    """

    def __init__(self, *, width: int, depth: int, mixer: dict = dict(type='BiLSTM'), layers: Sequence | None = None,
                 num_frames: int = 1) -> None:
        super().__init__()
        self.layers = parse_layers(layers, depth)
        self.mixer = MIXERS.build(mixer, default_args=dict(width=width))
        self.fc = nn.Linear(self.mixer.out_width, width)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def update(self, context: LayerContext) -> Tensor:
        """Return the CLS tokens with context added, [B, F, C] -> [B, F, C]."""
        return context.cls + self.fc(self.mixer(context.cls, context.frame_mask))
