"""Choosing frames."""
import numpy as np
from mmcv.transforms import BaseTransform

from vop_mm.registry import TRANSFORMS


def segment_bounds(total: int, num: int) -> np.ndarray:
    """Cut ``total`` frames into ``min(num, total)`` segments of equal length, as whole frames.

    Args:
        total (int): Frames there are, at least 1.
        num (int): Segments wanted, at least 1.

    Returns:
        np.ndarray: int64 [n + 1]; segment i is ``[bounds[i], bounds[i + 1])``.
    """
    if total < 1 or num < 1:
        raise ValueError(f'total and num must be at least 1, got {total} and {num}')
    return np.linspace(0, total, min(num, total) + 1).astype(np.int64)


def uniform_indices(total: int, num: int) -> np.ndarray:
    """The middle frame of each of ``num`` equal segments, as X-Pool's ``uniform`` sampling (and VoP) takes them.

    Args:
        total (int): Frames there are.
        num (int): Frames wanted.

    Returns:
        np.ndarray: int64 [min(num, total)], ascending; all frames, each once, where there are no more than ``num``.

    Examples:
        >>> uniform_indices(25, 12)
        array([ 0,  2,  4,  6,  8, 10, 12, 14, 16, 18, 20, 23])
    """
    bounds = segment_bounds(total, num)
    return (bounds[:-1] + bounds[1:] - 1) // 2


def random_indices(total: int, num: int) -> np.ndarray:
    """A random frame of each of ``num`` equal segments, drawn from numpy's global generator.

    Args:
        total (int): Frames there are.
        num (int): Frames wanted.

    Returns:
        np.ndarray: int64 [min(num, total)], ascending.
    """
    bounds = segment_bounds(total, num)
    return np.random.randint(bounds[:-1], bounds[1:], dtype=np.int64)


@TRANSFORMS.register_module()
class SampleSegments(BaseTransform):
    """Choose one frame of each of F equal segments of the clip.

    Required keys: ``total_frames``; optional ``clip_start`` and ``clip_end``.

    Added keys: ``frame_inds`` (int64), ``num_frames`` (how many of them are real), and ``clip_len``, ``num_clips`` for
    mmaction2's transforms.

    Args:
        num_frames (int): F. Defaults to 12.
        mode (str): ``'middle'`` of each segment, or a ``'random'`` frame of it. Defaults to ``'middle'``.
        pad (str, optional): A clip with fewer than F frames gives each once, and with ``'repeat'`` then the last one
            until there are F. None: fewer frames come out. Defaults to ``'repeat'``.
    """

    def __init__(self, num_frames: int = 12, mode: str = 'middle', pad: str | None = 'repeat') -> None:
        if mode not in ('middle', 'random'):
            raise ValueError(f"mode must be 'middle' or 'random', got {mode!r}")
        if pad not in ('repeat', None):
            raise ValueError(f"pad must be 'repeat' or None, got {pad!r}")
        if num_frames < 1:
            raise ValueError(f'num_frames must be at least 1, got {num_frames}')
        self.num_frames, self.mode, self.pad = num_frames, mode, pad

    def transform(self, results: dict) -> dict:
        """Choose the frames."""
        start = results.get('clip_start', 0)
        total = results.get('clip_end', results['total_frames']) - start
        choose = uniform_indices if self.mode == 'middle' else random_indices
        indices = start + choose(total, self.num_frames)
        results['num_frames'] = len(indices)
        if self.pad == 'repeat':
            indices = np.pad(indices, (0, self.num_frames - len(indices)), mode='edge')
        results.update(frame_inds=indices, clip_len=len(indices), num_clips=1)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_frames={self.num_frames}, mode={self.mode!r}, pad={self.pad!r})'
