"""Open video files; every use and every decoder goes through here."""
import os
from dataclasses import dataclass
from typing import BinaryIO

from vop_mm.utils.paths import open_regular

from ..errors import VideoDecodeError
from .formats import container_format


@dataclass
class VideoFile:
    """An open file that looks like a video.

    Args:
        path (str): Path as given, for error messages.
        file (BinaryIO): The open file.
        format (str): FFmpeg's demuxer name, for libraries that accept one.
    """
    path: str
    file: BinaryIO
    format: str

    @property
    def name(self) -> str:
        """Path for libraries to open, valid as long as the file is open.

        It refers to this very file, even if another one has replaced it under its path, and contains nothing that could
        be taken for a protocol, a file name pattern or an extension.
        """
        name = f'/proc/self/fd/{self.file.fileno()}'
        return name if os.path.exists(name) else os.path.abspath(self.path)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> 'VideoFile':
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()


def open_video_file(path: str) -> VideoFile:
    """Open a video file after checking that it may be decoded.

    Args:
        path (str): Path of the file.

    Returns:
        VideoFile: The open file, to be closed by the caller.

    Raises:
        VideoDecodeError: The file is missing, unreadable, not a regular file (a FIFO, a device), empty, or not in a
            supported container judging by its content.
    """
    path = os.fspath(path)
    try:
        file = open_regular(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise VideoDecodeError(path, 'no such file') from None
    except OSError as e:
        raise VideoDecodeError(path, e.strerror or str(e)) from None
    except ValueError:
        raise VideoDecodeError(path, 'the name contains a NUL byte') from None
    try:
        found = container_format(file)
        if found is None:
            raise VideoDecodeError(path, _reason(file))
    except OSError as e:
        file.close()
        raise VideoDecodeError(path, e.strerror or str(e)) from None
    except VideoDecodeError:
        file.close()
        raise
    return VideoFile(path, file, found)


def check_file(path: str) -> None:
    """Check that a file can be opened as a video; raises the same errors as :func:`open_video_file`."""
    open_video_file(path).close()


def _reason(file: BinaryIO) -> str:
    if not file.read(1):
        return 'the file is empty'
    return 'not a video of a known container (mp4, mov, mkv, webm, avi, flv, ogg, wmv, gif, MPEG): damaged, or ' \
           'something else'
