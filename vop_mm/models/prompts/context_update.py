"""The other role of the context module: it changes the CLS tokens in place of making prompts."""
from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from vop_mm.registry import MIXERS, UPDATES

from .base import LayerContext, parse_layers


@UPDATES.register_module()
class ContextUpdate(BaseModule):
    """Adds to every frame's CLS token what the context module makes of all of them (VoP, ablation of section 4.3).

    The context module and the linear layer behind it are shared by the layers. The linear layer starts at zero: a new
    module changes nothing.

    Args:
        width (int): Channels (C). The retriever fills it in.
        depth (int): Layers of the tower. The retriever fills it in.
        mixer (dict): The context module. Defaults to ``dict(type='BiLSTM')``.
        layers (Sequence, optional): As in :class:`PromptProvider`. Defaults to every layer.
        num_frames (int): Not used; the retriever fills it in.
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
        """CLS tokens with context. [B, F, C] -> [B, F, C]"""
        return context.cls + self.fc(self.mixer(context.cls, context.frame_mask))
