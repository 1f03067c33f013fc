"""What every decoder's reader has and checks."""
import abc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import VideoDecodeError


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


class UnfitDecoderError(VideoDecodeError):
    """A video of which this decoder would make other frames than those asked for; another one may read it."""


class VideoReader(abc.ABC):
    """A video file opened by a decoder, with every failure as :class:`VideoDecodeError`.

    It is what ``video_reader`` holds between transforms, and has as much of decord's own reader as
    ``mmaction.DecordDecode`` asks for. A decoder overrides the methods that raise ``NotImplementedError`` here.

    Args:
        path (str): The file.
        num_threads (int): Of the decoder. Defaults to 1.

    Raises:
        UnfitDecoderError: This decoder would get it wrong.
        VideoDecodeError: No such file, empty, not a video, or without frames.
    """

    def __init__(self, path: str, num_threads: int = 1) -> None:
        self.path = path
        self._reader = None
        check_file(path)
        unfit = self._ask(lambda: self._unfit(path))
        if unfit:
            raise UnfitDecoderError(path, unfit)
        self._reader = self._ask(lambda: self._open(path, num_threads))
        self._count = self._ask(lambda: len(self._reader))
        if self._count < 1:
            raise VideoDecodeError(path, 'no frames')
        wrong = self._ask(self._wrong_times)
        if wrong:
            raise UnfitDecoderError(path, f'{wrong}; convert it to mp4')

    # -- of a decoder -------------------------------------------------------------------------------------------------
    @staticmethod
    @abc.abstractmethod
    def _unfit(path: str) -> str | None:
        """Why the decoder must not open a file, from its content."""

    @staticmethod
    @abc.abstractmethod
    def _open(path: str, num_threads: int) -> Any:
        """The decoder's own reader; its ``len`` is how many frames there are."""

    @abc.abstractmethod
    def _wrong_times(self) -> str | None:
        """Why the decoder can't tell which frame is which in an opened file."""

    @abc.abstractmethod
    def _decode(self, indices: np.ndarray) -> np.ndarray:
        """Frames, uint8 [n, H, W, 3] RGB."""

    @staticmethod
    @abc.abstractmethod
    def _reason(error: Exception) -> str:
        """One line out of an error of the decoder."""

    @abc.abstractmethod
    def get_avg_fps(self) -> float:
        """Frames per second, on average."""

    @abc.abstractmethod
    def timestamps(self) -> Sequence[float]:
        """When each frame is shown, in seconds from the first one, ascending."""

    # -- of all -------------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return self._count

    def get_batch(self, indices: Sequence[int]) -> FrameBatch:
        """Decode frames.

        Args:
            indices (Sequence[int]): Each 0 or more and less than ``len(self)``; any order, repetitions allowed.

        Returns:
            FrameBatch: ``asnumpy()`` gives uint8 [len(indices), H, W, 3] RGB.

        Raises:
            VideoDecodeError: An index out of range, a damaged stream, or frames that don't come back as asked for.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 1 or not len(indices) or indices.min() < 0 or indices.max() >= self._count:
            # decord takes negative ones from the end
            raise VideoDecodeError(self.path, f'frames {indices.tolist()} asked for, the video has {self._count}')
        frames = self._ask(lambda: self._decode(indices))
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != len(indices) or frames.shape[3] != 3:
            raise VideoDecodeError(self.path, f'{len(indices)} frames asked for, decoded {frames.dtype} '
                                   f'{tuple(frames.shape)}')
        return FrameBatch(frames)

    def _ask(self, call: Callable) -> Any:
        try:
            return call()
        except (VideoDecodeError, ImportError):
            raise
        except Exception as e:  # decord raises RuntimeError, AssertionError and its own
            reason = self._reason(e)
        # A failed reader is let go at once, and the error holds no reference to it (so it is not raised above, where
        # it would keep decord's): it has threads, and if a forked worker came to delete it, it would wait for them
        # forever.
        self._reader = None
        raise VideoDecodeError(self.path, reason)


def check_file(path: str) -> None:
    """Look whether there is anything to decode.

    Raises:
        VideoDecodeError: No such file, no permission, or empty.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read(1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise VideoDecodeError(path, 'no such file') from None
    except OSError as e:
        raise VideoDecodeError(path, e.strerror or str(e)) from None
    if not content:
        raise VideoDecodeError(path, 'the file is empty')
