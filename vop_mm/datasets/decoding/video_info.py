"""Information about a video, available without decoding all of it."""
from dataclasses import dataclass, field

from .pyav_reader import PyAVReader


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video as it is shown.

    Args:
        seconds (float): Duration from the start of the first frame to the end of the last.
        frames (int): Number of frames that are shown.
        fps (float): Average number of frames per second.
        height (int): Frame height, as a player shows it.
        width (int): Frame width, as a player shows it.
        size (int): File size in bytes.
        codec (str): FFmpeg's codec name, for instance ``'h264'``.
        track (int): Index of the stream in the file.
        notes (list[str]): See :attr:`VideoReader.notes`.
    """
    seconds: float
    frames: int
    fps: float
    height: int
    width: int
    size: int
    codec: str
    track: int
    notes: list[str] = field(default_factory=list)


def probe(path: str) -> VideoInfo:
    """Probe a video: read its packets, and decode one frame to see how it is shown.

    Files whose packets have no presentation times (avi with B-frames, MPEG program streams) are decoded completely to
    count their frames.

    Raises:
        VideoDecodeError: See :class:`VideoReader`.
    """
    reader = PyAVReader(path)
    try:
        height, width = reader.shown_size
        return VideoInfo(reader.duration, len(reader), reader.get_avg_fps(), height, width, reader.file_size,
                         reader.codec, reader.track, reader.notes)
    finally:
        reader.close()
