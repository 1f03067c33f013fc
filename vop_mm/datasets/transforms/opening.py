"""Opening a video."""
import os
import os.path as osp
import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from mmcv.transforms import BaseTransform

from vop_mm.registry import TRANSFORMS

from ..errors import VideoDecodeError

_HALF_MS = 5e-4  # times in files are rounded, to milliseconds in some containers


@lru_cache(maxsize=1)
def _decord():
    try:
        import decord
    except ImportError as e:
        raise ImportError('decord is needed to decode videos: pip install decord') from e
    # what FFmpeg says about a damaged file comes back as an exception; on stderr it would stand without the file's name
    decord.logging.set_level(decord.logging.QUIET)
    return decord


class DecordReader:
    """A video file opened by decord, with every failure as :class:`VideoDecodeError`.

    It is what ``video_reader`` holds between transforms, and has as much of decord's own reader as
    ``mmaction.DecordDecode`` asks for; readers of other decoders need the same methods.

    Args:
        path (str): The file. decord gets the path, never the content: it crashes the process on some damaged files
            that it reads from memory.
        num_threads (int): Of the decoder. Defaults to 1.

    Raises:
        VideoDecodeError: No such file, empty, not a video, without frames.
    """

    def __init__(self, path: str, num_threads: int = 1) -> None:
        self.path = path
        if not osp.isfile(path):
            raise VideoDecodeError(path, 'no such file')
        if os.path.getsize(path) == 0:
            raise VideoDecodeError(path, 'the file is empty')
        decord = _decord()
        self._reader = None
        self._reader = self._ask(lambda: decord.VideoReader(path, ctx=decord.cpu(0), num_threads=num_threads))
        self._count = self._ask(lambda: len(self._reader))
        if self._count < 1:
            raise VideoDecodeError(path, 'no frames')

    def _ask(self, call: Callable):
        try:
            return call()
        except Exception as e:  # decord raises RuntimeError, AssertionError and its own
            reason = _reason(e)
        # A failed reader is let go at once, and the error holds no reference to it (so it is not raised above, where
        # it would keep decord's): it has threads, and if a forked worker came to delete it, it would wait for them
        # forever.
        self._reader = None
        raise VideoDecodeError(self.path, reason)

    def __len__(self) -> int:
        return self._count

    def get_avg_fps(self) -> float:
        """Frames per second, on average."""
        return float(self._ask(lambda: self._reader.get_avg_fps()))

    def timestamps(self) -> np.ndarray:
        """When each frame is shown, in seconds from the first one, float64 [total_frames]."""
        times = self._ask(lambda: self._reader.get_frame_timestamp(list(range(self._count))))
        times = np.asarray(times[:, 0], dtype=np.float64)
        if not np.isfinite(times).all():
            times = np.arange(self._count) / self.get_avg_fps()
        return times - times[0]

    def get_batch(self, indices) -> 'FrameBatch':
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
        frames = self._ask(lambda: self._reader.get_batch(indices))
        frames = frames.asnumpy() if hasattr(frames, 'asnumpy') else np.asarray(frames)  # decord's bridges
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != len(indices) or frames.shape[3] != 3:
            raise VideoDecodeError(self.path, f'{len(indices)} frames asked for, decoded {frames.dtype} '
                                   f'{tuple(frames.shape)}')
        return FrameBatch(frames)


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


def _reason(error: Exception) -> str:
    """One line out of decord's message, which names C++ files and ends with a stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    if line.startswith('Error reading'):
        return 'not a video that decord can open (damaged, cut off, or something else)'
    if 'cannot find video stream' in line:
        return 'no video stream'
    line = re.sub(r'\[\d+:\d+:\d+\] \S+:\d+: ', '', line)
    if 'av_read_frame' in line or 'avcodec_' in line:
        return f'the stream is damaged or cut off ({line})'
    return line


def clip_range(timestamps: np.ndarray, start: float | None, end: float | None) -> tuple[int, int]:
    """The frames that belong to a clip of a video.

    Those that begin in [start, end); where none does, the one that is on screen at ``start``.

    Args:
        timestamps (np.ndarray): When each frame is shown, in seconds from the first, ascending, [n].
        start (float, optional): Seconds. None: 0.
        end (float, optional): Seconds; may lie behind the video's end. None: the video's end.

    Returns:
        tuple[int, int]: First frame, and the one behind the last.

    Raises:
        ValueError: The clip starts behind the last frame.

    Examples:
        >>> clip_range(np.arange(100) / 25, 1, 2)
        (25, 50)
    """
    start = start or 0.
    duration = timestamps[-1] + (timestamps[-1] / (len(timestamps) - 1) if len(timestamps) > 1 else 0)
    if start > max(duration, _HALF_MS):
        raise ValueError(f'the clip starts at {start:g} s, the video ends at {duration:.3g} s')
    first = int(np.searchsorted(timestamps, start - _HALF_MS))
    stop = len(timestamps) if end is None else int(np.searchsorted(timestamps, end - _HALF_MS))
    return (first, stop) if first < stop else (max(first - 1, 0), max(first, 1))


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video with decord, by its path.

    Required keys: ``filename``; optional ``start`` and ``end`` (seconds).

    Added keys: ``video_reader``, ``total_frames``, ``avg_fps``, ``clip_start`` and ``clip_end`` (the frames that
    sampling may take, the second one exclusive, from the file's own timestamps), ``modality``.

    Args:
        num_threads (int): Of the decoder. Defaults to 1: loading is parallel over workers.
    """

    def __init__(self, num_threads: int = 1) -> None:
        self.num_threads = num_threads

    def transform(self, results: dict) -> dict:
        """Open ``filename``.

        Raises:
            VideoDecodeError: It can't be opened, has no frames, or ends before the clip starts.
        """
        reader = DecordReader(results['filename'], self.num_threads)
        clip = 0, len(reader)
        if results.get('start') is not None or results.get('end') is not None:
            try:
                clip = clip_range(reader.timestamps(), results.get('start'), results.get('end'))
            except ValueError as e:
                raise VideoDecodeError(results['filename'], str(e)) from None
        results.update(video_reader=reader, total_frames=len(reader), avg_fps=reader.get_avg_fps(),
                       clip_start=clip[0], clip_end=clip[1], modality='RGB')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_threads={self.num_threads})'
