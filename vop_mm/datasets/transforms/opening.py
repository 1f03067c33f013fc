"""Opening a video."""
from bisect import bisect_left
from collections.abc import Sequence

from mmcv.transforms import BaseTransform

from vop_mm.registry import TRANSFORMS

from ..decoding import DecordReader, TorchCodecReader, UnfitDecoderError, VideoReader, torchcodec_problem
from ..decoding.containers import unfit_for_torchcodec
from ..errors import VideoDecodeError

_HALF_MS = 5e-4  # times in files are rounded, to milliseconds in some containers


def clip_range(timestamps: Sequence[float], start: float | None, end: float | None) -> tuple[int, int]:
    """The frames that belong to a clip of a video.

    Those that begin in [start, end); where none does, the one that is on screen at ``start``.

    Args:
        timestamps (Sequence[float]): When each frame is shown, in seconds from the first, ascending, [n].
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
    last = timestamps[len(timestamps) - 1]
    duration = last + (last / (len(timestamps) - 1) if len(timestamps) > 1 else 0)
    if start > max(duration, _HALF_MS):
        raise ValueError(f'the clip starts at {start:g} s, the video ends at {duration:.3g} s')
    first = bisect_left(timestamps, start - _HALF_MS)
    stop = len(timestamps) if end is None else bisect_left(timestamps, end - _HALF_MS)
    return (first, stop) if first < stop else (max(first - 1, 0), max(first, 1))


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video with decord, by its path.

    Files of which decord would make wrong frames silently, or in which it would hang, are opened with torchcodec where
    it is installed, and refused otherwise; see :func:`~vop_mm.datasets.decoding.unfit_for_decord`.

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
        return _add_reader(results, self._reader(results['filename']))

    def _reader(self, path: str) -> VideoReader:
        try:
            return DecordReader(path, self.num_threads)
        except UnfitDecoderError as e:
            if unfit_for_torchcodec(path):
                raise
            problem = torchcodec_problem()
            if problem:
                raise VideoDecodeError(path, f'{e.reason}; torchcodec might read it, but {problem}') from None
        return TorchCodecReader(path, self.num_threads)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_threads={self.num_threads})'


@TRANSFORMS.register_module()
class OpenVideoTorchCodec(BaseTransform):
    """Open a video with torchcodec; keys as :class:`OpenVideo`.

    Args:
        num_threads (int): Of the decoder. Defaults to 1: loading is parallel over workers.

    Raises:
        ImportError: torchcodec is not installed, or can't be loaded.
    """

    def __init__(self, num_threads: int = 1) -> None:
        if torchcodec_problem():
            raise ImportError(torchcodec_problem())
        self.num_threads = num_threads

    def transform(self, results: dict) -> dict:
        """Open ``filename``.

        Raises:
            VideoDecodeError: It can't be opened, has no frames, or ends before the clip starts.
        """
        return _add_reader(results, TorchCodecReader(results['filename'], self.num_threads))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_threads={self.num_threads})'


def _add_reader(results: dict, reader: VideoReader) -> dict:
    clip = 0, len(reader)
    if results.get('start') is not None or results.get('end') is not None:
        try:
            clip = clip_range(reader.timestamps(), results.get('start'), results.get('end'))
        except ValueError as e:
            raise VideoDecodeError(results['filename'], str(e)) from None
    results.update(video_reader=reader, total_frames=len(reader), avg_fps=reader.get_avg_fps(),
                   clip_start=clip[0], clip_end=clip[1], modality='RGB')
    return results
