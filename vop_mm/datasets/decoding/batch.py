"""Batches of decoded frames."""
import numpy as np

from ..errors import VideoDecodeError

_NAMED = 10  # maximum number of frames listed in an error


class DamagedError(Exception):
    """A part of a stream can't be decoded."""


class FrameBatch:
    """Decoded frames, with the interface of decord's batches.

    Args:
        frames (np.ndarray): uint8 [n, H, W, 3] RGB.
    """

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = frames

    def asnumpy(self) -> np.ndarray:
        """Return the frames, uint8 [n, H, W, 3] RGB."""
        return self._frames


class UnfinishedBatch:
    """Batch of requested frames that is being filled; each frame is decoded once.

    Args:
        indices (np.ndarray): Frame indices in any order, int64 [n].

    Attributes:
        places (dict[int, list[int]]): Positions of each frame in the batch; frames ascending.
        missing (set[int]): Frames that are not decoded yet.
        frames (np.ndarray): uint8 [n, H, W, 3]; None until the first frame is decoded.
    """

    def __init__(self, indices: np.ndarray) -> None:
        self.places = {int(i): [] for i in np.unique(indices)}
        for place, i in enumerate(indices.tolist()):
            self.places[i].append(place)
        self.missing, self.frames, self._count = set(self.places), None, len(indices)

    def put(self, i: int, image: np.ndarray) -> None:
        """Store a frame, uint8 [H, W, 3], at all its positions."""
        if self.frames is None:
            self.frames = np.empty((self._count, *image.shape), np.uint8)
        self.frames[self.places[i]] = image
        self.missing.discard(i)


def damage_error(path: str, damaged: dict[int, str]) -> VideoDecodeError:
    """Build the error that lists damaged frames of a video and gives the first reason.

    Args:
        path (str): Video path.
        damaged (dict[int, str]): Reason for each damaged frame, by frame number.
    """
    named = ', '.join(map(str, list(damaged)[:_NAMED])) + (', ...' if len(damaged) > _NAMED else '')
    reason = next(iter(damaged.values()))
    return VideoDecodeError(path, f'{len(damaged)} of the frames asked for ({named}) are damaged: {reason}')
