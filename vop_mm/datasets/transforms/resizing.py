"""Resizing frames."""
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image

from vop_mm.registry import TRANSFORMS

_FILTERS = dict(bicubic=Image.Resampling.BICUBIC, bilinear=Image.Resampling.BILINEAR)


def short_side_size(height: int, width: int, short: int) -> tuple[int, int]:
    """Return the (height, width) whose short side is ``short``, rounded down as in CLIP's preprocessing.

    CLIP uses torchvision's ``Resize``.

    Args:
        height (int): Frame height.
        width (int): Frame width.
        short (int): Short side of the result.

    Returns:
        tuple[int, int]: Height, width.

    Examples:
        >>> short_side_size(240, 320, 224)
        (224, 298)
    """
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


@TRANSFORMS.register_module()
class ResizeFrames(BaseTransform):
    """Resize frames as CLIP's preprocessing does: with PIL, antialiased.

    (``mmaction.Resize`` uses OpenCV, which doesn't antialias and rounds sizes differently.)

    Required keys: ``imgs`` (list of uint8 [H, W, 3]). Modified keys: ``imgs``, ``img_shape``.

    Args:
        size (int | Sequence[int]): Short side, or (height, width). Defaults to 224.
        interpolation (str): ``'bicubic'`` or ``'bilinear'``. Defaults to ``'bicubic'``.
    """

    def __init__(self, size: int | tuple[int, int] = 224, interpolation: str = 'bicubic') -> None:
        sides = (size, ) if isinstance(size, int) else tuple(size)
        if len(sides) not in (1, 2) or min(sides) < 1:
            raise ValueError(f'size must be the short side or (height, width), got {size!r}')
        if interpolation not in _FILTERS:
            raise ValueError(f'interpolation must be one of {tuple(_FILTERS)}, got {interpolation!r}')
        self.size = size if isinstance(size, int) else sides
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Resize every frame."""
        results['imgs'] = self.resize(results['imgs'])
        results['img_shape'] = results['imgs'][0].shape[:2]
        return results

    def resize(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Resize frames of one size, uint8 [H, W, 3] each."""
        height, width = frames[0].shape[:2]
        new = short_side_size(height, width, self.size) if isinstance(self.size, int) else self.size
        if new == (height, width):
            return list(frames)
        return [np.array(Image.fromarray(frame).resize(new[::-1], _FILTERS[self.interpolation])) for frame in frames]

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, interpolation={self.interpolation!r})'
