"""Frames on their way to who asked for them."""
import numpy as np

from ..errors import VideoDecodeError

_NAMED = 10  # frames that an error names


class DamagedError(Exception):
    """A part of a stream can not be decoded."""


class FrameBatch:
    """Decoded frames, in the form in which decord hands them out.

    Args:
        frames (np.ndarray): uint8 [n, H, W, 3] RGB.
    """

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = frames

    def asnumpy(self) -> np.ndarray:
        """uint8 [n, H, W, 3] RGB."""
        return self._frames


class UnfinishedBatch:
    """Frames that are asked for, each decoded once.

    Args:
        indices (np.ndarray): Which ones, in any order, int64 [n].

    Attributes:
        places (dict[int, list[int]]): Places of each frame in the batch; frames ascending.
        missing (set[int]): Frames that are not there yet.
        frames (np.ndarray): uint8 [n, H, W, 3]; None until the first one is there.
    """

    def __init__(self, indices: np.ndarray) -> None:
        self.places = {int(i): [] for i in np.unique(indices)}
        for place, i in enumerate(indices.tolist()):
            self.places[i].append(place)
        self.missing, self.frames, self._count = set(self.places), None, len(indices)

    def put(self, i: int, image: np.ndarray) -> None:
        """Fill the places of a frame, uint8 [H, W, 3]."""
        if self.frames is None:
            self.frames = np.empty((self._count, *image.shape), np.uint8)
        self.frames[self.places[i]] = image
        self.missing.discard(i)


def damage_error(path: str, damaged: dict[int, str]) -> VideoDecodeError:
    """The error that names damaged frames of a video, and the first reason.

    Args:
        path (str): The video.
        damaged (dict[int, str]): What is wrong, by the numbers of frames.
    """
    named = ', '.join(map(str, list(damaged)[:_NAMED])) + (', ...' if len(damaged) > _NAMED else '')
    reason = next(iter(damaged.values()))
    return VideoDecodeError(path, f'{len(damaged)} of the frames asked for ({named}) are damaged: {reason}')
