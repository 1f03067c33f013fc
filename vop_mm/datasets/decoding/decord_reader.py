"""Video reader based on decord, used only if requested by name."""
import re
from functools import lru_cache

import numpy as np

from vop_mm.registry import READERS

from ..errors import VideoDecodeError
from .frame_index import FrameIndex
from .pyav_reader import PyAVReader
from .video_reader import VideoReader

_CONTAINERS = ('mov', 'matroska')


@READERS.register_module()
class DecordReader(VideoReader):
    """A video read by decord 0.6; see :class:`VideoReader`.

    decord silently seeks to wrong frames in many files. Therefore PyAV reads the packets first, and everything that
    decord is not known to read exactly is refused: containers other than mp4, mov, mkv and webm, frames that are stored
    after a key frame and shown before it, edit lists that hide frames, several video tracks, and pictures that decord
    does not show as a player does (mirrored, HDR, non-square pixels). Intra refresh leaves no mark and is not detected.

    decord gets the path, never the content: some damaged files crash the process if decord reads them from memory.
    """

    def _open(self) -> FrameIndex:
        self._reader = None
        decord = _decord()
        by_pyav = PyAVReader(self._file.name)
        try:
            if self._file.format not in _CONTAINERS:
                self._refuse(f'{self._file.format} files are not')
            problem = by_pyav.display_problem or by_pyav.seek_problem
            if problem:
                self._refuse(f'a video with {problem} is not')
            index, self._size = by_pyav._index, by_pyav._size
            self.notes += by_pyav.notes
        finally:
            by_pyav.close()
        self._reader = decord.VideoReader(self._file.name, ctx=decord.cpu(0), num_threads=self._num_threads)
        if len(self._reader) != len(index):
            self._refuse(f'decord counts {len(self._reader)} frames where {len(index)} are shown, such a file is not')
        try:
            return index.window(self._start, self._end)
        except ValueError as e:
            raise VideoDecodeError(self.path, str(e)) from None

    def _refuse(self, what: str) -> None:
        raise VideoDecodeError(self.path, f'{what} supported by DecordReader: use PyAVReader')

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        frames = self._reader.get_batch(indices + self._index.offset)
        return frames.asnumpy() if hasattr(frames, 'asnumpy') else np.asarray(frames)  # decord's bridges return others

    def _release(self) -> None:
        self._reader = None

    @staticmethod
    def _reason(error: Exception) -> str:
        """Return one line of decord's message, which names C++ files and ends with a stack trace."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        line = lines[0] if lines else type(error).__name__
        if line.startswith('Error reading'):
            return 'damaged, truncated or not a video that decord can open; try PyAVReader'
        if 'cannot find video stream' in line:
            return 'no video stream, or one of a codec that decord does not know (AV1); use PyAVReader'
        line = re.sub(r'\[\d+:\d+:\d+\] \S+:\d+: ', '', line)
        if 'av_read_frame' in line or 'avcodec_' in line:
            return f'the stream is damaged or truncated ({line})'
        return line


@lru_cache(maxsize=1)
def _decord():
    try:
        import decord
    except ImportError as e:
        raise ImportError('DecordReader needs decord: pip install "decord>=0.6.0,<1.0" (x86-64 only); PyAVReader does '
                          'not') from e
    if int(decord.__version__.split('.')[0]) >= 1:
        raise ImportError(f'decord {decord.__version__} is decord2, which returns wrong frames under load: '
                          'pip uninstall -y decord2, or use PyAVReader')
    # FFmpeg's messages about damaged files are raised as exceptions; on stderr they would lack the file name
    decord.logging.set_level(decord.logging.QUIET)
    return decord
