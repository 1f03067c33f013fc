"""What can be said of a video without decoding it all."""
from dataclasses import dataclass, field

from .pyav_reader import PyAVReader


@dataclass(frozen=True)
class VideoInfo:
    """A video as it is shown.

    Args:
        seconds (float): From its first frame to the end of its last.
        frames (int): Frames that are shown.
        fps (float): Frames per second, on average.
        height (int): Of a frame, as a player shows it.
        width (int): Of a frame, as a player shows it.
        size (int): Bytes of the file.
        codec (str): FFmpeg's name of the codec, for instance ``'h264'``.
        track (int): Which of the streams in the file it is.
        notes (list[str]): As :attr:`VideoReader.notes`.
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
    """Look at a video: its packets are read, and one frame is decoded to see how it is shown.

    A file whose packets do not say when frames are shown (avi with B-frames, MPEG program streams) is decoded to count
    them.

    Raises:
        VideoDecodeError: As for a reader.
    """
    reader = PyAVReader(path)
    try:
        height, width = reader.shown_size
        return VideoInfo(reader.duration, len(reader), reader.get_avg_fps(), height, width, reader.file_size,
                         reader.codec, reader.track, reader.notes)
    finally:
        reader.close()
