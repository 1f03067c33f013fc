"""What every reader of videos has and checks."""
import abc
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import VideoDecodeError
from .batch import FrameBatch
from .frame_index import FrameIndex
from .limits import Limits
from .video_file import open_video_file


class VideoReader(abc.ABC):
    """A video file opened by a decoder, with every failure as :class:`VideoDecodeError`.

    The file is opened once, by :func:`~vop_mm.datasets.decoding.open_video_file`, and what comes out of it is bounded
    by :class:`~vop_mm.datasets.decoding.Limits`. A subclass registers itself in ``READERS`` and overrides the abstract
    methods; it sets ``_size``, and appends to ``notes``, in ``_open``.

    Args:
        path (str): The file.
        num_threads (int): Of the decoder. Defaults to 1.
        start (float, optional): Seconds from the first frame of the file: only frames that begin in [start, end) are
            held, and before them the one on screen at ``start`` if none begins within half a millisecond of it. None:
            from the first frame on.
        end (float, optional): Seconds from the first frame of the file. None: to the last frame.

    Attributes:
        path (str): The file.
        notes (list[str]): What somebody who looks at the frames might want to know.

    Raises:
        VideoDecodeError: No such file, empty, not a video, without frames, beyond the limits, of a kind that this
            reader does not read, or the clip starts behind the end of the video.
    """

    def __init__(self, path: str, num_threads: int = 1, start: float | None = None, end: float | None = None) -> None:
        self.path, self.notes = path, []
        self._num_threads, self._start, self._end = num_threads, start, end
        self._limits = Limits.current()
        self._size = None  # height and width of frames, as they are decoded and as they are shown, the larger ones
        self._file = open_video_file(path)  # open as long as the reader lives
        self._index = self._ask(self._open)
        self._limits.check_length(path, len(self._index), self._index.duration)

    # -- of a decoder -------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def _open(self) -> FrameIndex:
        """Open the file; the index of the frames from ``_start`` to ``_end``."""

    @abc.abstractmethod
    def _decode(self, indices: np.ndarray) -> np.ndarray:
        """Frames, uint8 [n, H, W, 3] RGB."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Let go of what the decoder holds; may be called twice."""

    @staticmethod
    @abc.abstractmethod
    def _reason(error: Exception) -> str:
        """One line out of an error of the decoder."""

    # -- of all -------------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._index)

    @property
    def duration(self) -> float:
        """When the last frame of this reader stops being shown, in seconds from the first frame of the file."""
        return self._index.duration

    def timestamps(self) -> np.ndarray:
        """When each frame begins to be shown, in seconds from the first frame of the file, float64 [n], ascending."""
        return self._index.seconds

    def get_avg_fps(self) -> float:
        """Frames per second, on average."""
        return self._index.fps

    def get_batch(self, indices: Sequence[int]) -> FrameBatch:
        """Decode frames.

        Args:
            indices (Sequence[int]): Each 0 or more and less than ``len(self)``; any order, repetitions allowed.

        Returns:
            FrameBatch: ``asnumpy()`` gives uint8 [len(indices), H, W, 3] RGB, as a player shows them.

        Raises:
            VideoDecodeError: An index out of range, a damaged stream (it says which frames), too many frames for
                memory, or frames that do not come back as asked for.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 1 or not len(indices) or indices.min() < 0 or indices.max() >= len(self):
            raise VideoDecodeError(self.path, f'frames {indices.tolist()} asked for, the video has {len(self)}')
        self._limits.check_batch(self.path, len(indices), *self._size)
        frames = self._ask(lambda: self._decode(indices))
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != len(indices) or frames.shape[3] != 3:
            raise VideoDecodeError(self.path, f'{len(indices)} frames asked for, decoded {frames.dtype} '
                                   f'{tuple(frames.shape)}')
        return FrameBatch(frames)

    @property
    def file_size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._file.file.fileno()).st_size

    def close(self) -> None:
        """Close the file; the reader is of no more use."""
        self._release()
        self._file.close()

    def _ask(self, call: Callable) -> Any:
        try:
            return call()
        except MemoryError:
            raise MemoryError from None  # PyAV has a kind of its own, which can't be sent to another process
        except VideoDecodeError:
            raise
        except ImportError:
            raise
        except Exception as e:  # decoders raise all kinds
            reason = self._reason(e).replace(self._file.name, 'the file')
        # The error holds no reference to the reader (so it is not raised above): decord's has threads, and if a forked
        # worker came to delete it, it would wait for them forever.
        raise VideoDecodeError(self.path, reason)
