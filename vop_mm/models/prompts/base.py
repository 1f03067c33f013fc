"""Base class of the prompt providers."""
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from mmengine.model import BaseModule
from torch import Tensor


class LayerContext(NamedTuple):
    """Inputs available to a provider when it generates the tokens of a layer.

    Attributes:
        layer (int): Layer index, from 0.
        cls (Tensor): CLS tokens of all frames as they enter the layer, [B, F, C]; of a backbone without CLS, the means
            of their patches. In the text tower, the start-of-text tokens, [n, 1, C].
        frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding. None: every frame is real.
        patches (Tensor, optional): Patches of all frames as they enter the layer, [B, F, M, C]. None in the text tower.
    """
    layer: int
    cls: Tensor
    frame_mask: Tensor | None = None
    patches: Tensor | None = None


class PromptProvider(BaseModule, metaclass=ABCMeta):
    """Base class of modules that generate the prompt tokens of some layers. It is independent of CLIP.

    A subclass sets ``num_tokens`` and implements :meth:`tokens`. All its parameters are trained by ``PromptTuning``
    and saved, without further declaration.

    Args:
        num_tokens (int): Number of tokens added to each of its layers (P).
        width (int): Number of channels of a token (C). Filled in by the retriever.
        depth (int): Number of layers of the tower. Filled in by the retriever.
        num_frames (int): Number of frames of a video (F). Filled in by the retriever.
        layers (Sequence, optional): Layers with these prompts: a half-open range ``(start, stop)`` counted from 0, or
            several, ``[(0, 2), (5, 6)]``. None means every layer; the retriever fills in the layers of the scope.
            Defaults to None.

    Raises:
        ValueError: A layer that the tower doesn't have, or fewer than one token.
    """

    def __init__(self, num_tokens: int, *, width: int, depth: int, num_frames: int = 1,
                 layers: Sequence | None = None) -> None:
        super().__init__()
        if num_tokens < 1:
            raise ValueError(f'{type(self).__name__} needs num_tokens >= 1, got {num_tokens}')
        self.num_tokens = num_tokens
        self.width = width
        self.num_frames = num_frames
        self.layers = parse_layers(layers, depth)
        self._row = {layer: row for row, layer in enumerate(self.layers)}

    def row(self, layer: int) -> int:
        """Return the row of a layer in a table with one row for each of :attr:`layers`."""
        return self._row[layer]

    @abstractmethod
    def tokens(self, context: LayerContext) -> Tensor:
        """Generate the tokens of one layer.

        Args:
            context (LayerContext): The layer and its inputs.

        Returns:
            Tensor: [1 or B, 1 or F, P, C]; dimensions of size 1 are shared by all videos or all frames.
        """


def parse_layers(layers: Sequence | None, depth: int) -> tuple[int, ...]:
    """Return the layer indices of one half-open range, of several, or of all layers.

    Args:
        layers (Sequence, optional): ``None``, ``(start, stop)`` or ``[(start, stop), ...]``.
        depth (int): Number of layers of the tower.

    Returns:
        tuple[int, ...]: Sorted indices.

    Raises:
        ValueError: Not a range, an empty or reversed range, an overlap, or a layer outside 0 .. depth - 1.
    """
    if layers is None:
        return tuple(range(depth))
    if not isinstance(layers, Sequence) or not layers:
        raise ValueError(f'layers must be (start, stop) or a list of such pairs, got {layers!r}')
    ranges = [layers] if len(layers) == 2 and all(isinstance(x, int) for x in layers) else list(layers)
    indices = []
    for item in ranges:
        if not (isinstance(item, Sequence) and len(item) == 2 and all(isinstance(x, int) for x in item)):
            raise ValueError(f'layers must be (start, stop) or a list of such pairs, got {layers!r}')
        if not 0 <= item[0] < item[1] <= depth:
            raise ValueError(f'layers {tuple(item)} is not a range inside 0..{depth}, the layers of this tower')
        indices += range(*item)
    if len(set(indices)) != len(indices):
        raise ValueError(f'layers {layers!r} name a layer twice')
    return tuple(sorted(indices))
