"""Videos by decord."""
import re
from functools import lru_cache

import numpy as np

from .containers import unfit_for_decord
from .video_reader import VideoReader


@lru_cache(maxsize=1)
def _decord():
    try:
        import decord
    except ImportError as e:
        raise ImportError('decord is needed to decode videos: pip install decord') from e
    # what FFmpeg says about a damaged file comes back as an exception; on stderr it would stand without the file's name
    decord.logging.set_level(decord.logging.QUIET)
    return decord


class DecordReader(VideoReader):
    """A video opened by decord; see :class:`VideoReader`.

    decord gets the path, never the content: it crashes the process on some damaged files that it reads from memory.
    """

    _unfit = staticmethod(unfit_for_decord)

    @staticmethod
    def _open(path: str, num_threads: int):
        decord = _decord()
        return decord.VideoReader(path, ctx=decord.cpu(0), num_threads=num_threads)

    def _wrong_times(self) -> str | None:
        times = self._reader.get_frame_timestamp(range(self._count))
        self._times = np.asarray(times[:, 0], dtype=np.float64)
        # without times (AVI with B-frames) decord seeks by what it finds in their place
        ascending = np.isfinite(self._times).all() and (np.diff(self._times) > 0).all()
        return None if ascending else 'its frames have no times of their own, and decord seeks to wrong ones'

    def get_avg_fps(self) -> float:
        """Frames per second, on average."""
        return float(self._ask(lambda: self._reader.get_avg_fps()))

    def timestamps(self) -> np.ndarray:
        """When each frame is shown, in seconds from the first one, float64 [total_frames]."""
        return self._times - self._times[0]

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        frames = self._reader.get_batch(indices)
        return frames.asnumpy() if hasattr(frames, 'asnumpy') else np.asarray(frames)  # decord's bridges

    @staticmethod
    def _reason(error: Exception) -> str:
        """One line out of decord's message, which names C++ files and ends with a stack trace."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        line = lines[0] if lines else type(error).__name__
        if line.startswith('Error reading'):
            return 'not a video that decord can open (damaged, cut off, or something else)'
        if 'cannot find video stream' in line:
            return 'no video stream, or one of a codec that decord does not know (AV1)'
        line = re.sub(r'\[\d+:\d+:\d+\] \S+:\d+: ', '', line)
        if 'av_read_frame' in line or 'avcodec_' in line:
            return f'the stream is damaged or cut off ({line})'
        return line
