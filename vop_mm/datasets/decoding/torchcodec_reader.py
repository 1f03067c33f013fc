"""Videos by torchcodec."""
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .containers import unfit_for_torchcodec
from .video_reader import VideoReader

_TOLERANCE = 5e-4  # seconds


@lru_cache(maxsize=1)
def torchcodec_problem() -> str | None:
    """Why torchcodec can't be used here: it is not installed, or finds no FFmpeg, or is made for another torch.

    Returns:
        str | None: One line; None where it works.
    """
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder  # noqa: F401 - where older ones load FFmpeg
    except ImportError:
        return 'torchcodec is not installed (pip install torchcodec)'
    except Exception as e:
        return f'torchcodec can not be loaded: {str(e).strip().splitlines()[0]}'
    if getattr(torchcodec, 'ffmpeg_major_version', 0) is None:
        return 'torchcodec finds no shared libraries of FFmpeg that it can load'
    return None


class TorchCodecReader(VideoReader):
    """A video opened by torchcodec; see :class:`VideoReader`."""

    _unfit = staticmethod(unfit_for_torchcodec)

    @staticmethod
    def _open(path: str, num_threads: int):
        from torchcodec.decoders import VideoDecoder
        return VideoDecoder(path, dimension_order='NHWC', num_ffmpeg_threads=num_threads, seek_mode='exact')

    def _wrong_times(self) -> str | None:
        # Where packets have no times (AVI with B-frames), torchcodec numbers frames by the packets' order in the file.
        # The first frame then has a time that is not the stream's first.
        self._first_time = self._time(0)
        if abs(self._first_time - self._reader.metadata.begin_stream_seconds) > _TOLERANCE:
            return 'its frames have no times of their own, and torchcodec seeks to wrong ones'
        return None

    def get_avg_fps(self) -> float:
        """Frames per second, on average."""
        return float(self._reader.metadata.average_fps)

    def timestamps(self) -> Sequence[float]:
        """When each frame is shown, in seconds from the first one. A time is known when its frame is decoded."""
        return _Times(self)

    def _time(self, index: int) -> float:
        return self._ask(lambda: self._reader.get_frame_at(index).pts_seconds)

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        return self._reader.get_frames_at(indices.tolist()).data.numpy()

    @staticmethod
    def _reason(error: Exception) -> str:
        line = ' '.join(str(error).split()) or type(error).__name__
        if 'Could not open input file' in line:
            return 'not a video that torchcodec can open (damaged, cut off, or something else)'
        if 'best video stream is unknown' in line:
            return 'no video stream'
        line = line.rpartition('.cpp:')[2].partition(', ')[2] or line  # "function, file:line, what is wrong"
        if 'packet' in line or 'no more frames' in line:
            return f'the stream is damaged or cut off ({line})'
        return line


class _Times(Sequence):
    """Times of a reader's frames, each looked up when it is asked for: torchcodec has no list of them."""

    def __init__(self, reader: TorchCodecReader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> float:
        return self._reader._time(index % len(self)) - self._reader._first_time
