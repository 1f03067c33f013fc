"""Base class of all video readers."""
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
    """A video file opened by a decoder; every failure is raised as :class:`VideoDecodeError`.

    The file is opened once, by :func:`~vop_mm.datasets.decoding.open_video_file`, and its output is bounded by
    :class:`~vop_mm.datasets.decoding.Limits`. A subclass registers itself in ``READERS`` and overrides the abstract
    methods; its ``_open`` sets ``_size`` and appends to ``notes``.

    Args:
        path (str): Path of the file.
        num_threads (int): Number of decoder threads. Defaults to 1.
        start (float, optional): Seconds from the first frame of the file. Only frames that begin in [start, end) are
            kept, preceded by the one on screen at ``start`` if none begins within half a millisecond of it. None: from
            the first frame.
        end (float, optional): Seconds from the first frame of the file. None: to the last frame.

    Attributes:
        path (str): Path of the file.
        notes (list[str]): Notes for people who view the frames.

    Raises:
        VideoDecodeError: The file is missing, empty, not a video, without frames, beyond the limits, or of a kind that
            this reader does not support, or the clip starts after the end of the video.
    """

    def __init__(self, path: str, num_threads: int = 1, start: float | None = None, end: float | None = None) -> None:
        self.path, self.notes = path, []
        self._num_threads, self._start, self._end = num_threads, start, end
        self._limits = Limits.current()
        self._size = None  # height and width of frames: the maximum of decoded and shown size
        self._file = open_video_file(path)  # open as long as the reader lives
        self._index = self._ask(self._open)
        self._limits.check_length(path, len(self._index), self._index.duration)

    # -- implemented by each decoder ----------------------------------------------------------------------------------
    @abc.abstractmethod
    def _open(self) -> FrameIndex:
        """Open the file and return the index of the frames from ``_start`` to ``_end``."""

    @abc.abstractmethod
    def _decode(self, indices: np.ndarray) -> np.ndarray:
        """Decode frames, uint8 [n, H, W, 3] RGB."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Release the decoder's resources; may be called twice."""

    @staticmethod
    @abc.abstractmethod
    def _reason(error: Exception) -> str:
        """Return one line describing an error of the decoder."""

    # -- shared -------------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._index)

    @property
    def duration(self) -> float:
        """End of this reader's last frame, in seconds from the first frame of the file."""
        return self._index.duration

    def timestamps(self) -> np.ndarray:
        """Return the start of each frame in seconds from the first frame of the file, float64 [n], ascending."""
        return self._index.seconds

    def get_avg_fps(self) -> float:
        """Return the average number of frames per second."""
        return self._index.fps

    def get_batch(self, indices: Sequence[int]) -> FrameBatch:
        """Decode frames.

        Args:
            indices (Sequence[int]): Frame indices in [0, len(self)), in any order, repetitions allowed.

        Returns:
            FrameBatch: ``asnumpy()`` gives uint8 [len(indices), H, W, 3] RGB, as a player shows them.

        Raises:
            VideoDecodeError: An index is out of range, the stream is damaged (the message lists the frames), the frames
                need too much memory, or the decoder returned something other than the requested frames.
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
        """File size in bytes."""
        return os.fstat(self._file.file.fileno()).st_size

    def close(self) -> None:
        """Close the file; the reader can't be used afterwards."""
        self._release()
        self._file.close()

    def _ask(self, call: Callable) -> Any:
        try:
            return call()
        except MemoryError:
            raise MemoryError from None  # PyAV has a subclass that can't be sent to another process
        except VideoDecodeError:
            raise
        except ImportError:
            raise
        except Exception as e:  # decoders raise many types
            reason = self._reason(e).replace(self._file.name, 'the file')
        # The error must not reference the reader (so it is not raised above): decord's reader has threads, and a forked
        # worker that deleted it would wait for them forever.
        raise VideoDecodeError(self.path, reason)
