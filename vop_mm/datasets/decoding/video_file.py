"""The one door to video files: every use opens them here, whatever decodes them."""
import os
from dataclasses import dataclass
from typing import BinaryIO

from vop_mm.utils.paths import open_regular

from ..errors import VideoDecodeError
from .formats import container_format


@dataclass
class VideoFile:
    """A video file that is open, and looks like a video.

    Args:
        path (str): As it was asked for; for messages.
        file (BinaryIO): The file.
        format (str): FFmpeg's name of its demuxer, for libraries that can be told.
    """
    path: str
    file: BinaryIO
    format: str

    @property
    def name(self) -> str:
        """What a library is to open: this very file, whatever stands under its path meanwhile, and no name from which a
        protocol, a pattern of names or an extension could be read. Good as long as the file is open.
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
    """Open a video file, if it is one that may be decoded.

    Args:
        path (str): The file.

    Returns:
        VideoFile: Open until it is closed.

    Raises:
        VideoDecodeError: No such file, no permission, no regular file (a FIFO, a device), empty, or not of a known
            container by its content.
    """
    path = os.fspath(path)
    try:
        file = open_regular(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise VideoDecodeError(path, 'no such file') from None
    except OSError as e:
        raise VideoDecodeError(path, e.strerror or str(e)) from None
    except ValueError:
        raise VideoDecodeError(path, 'a name with a NUL') from None
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
    """Look whether there is anything to decode; raises as :func:`open_video_file`."""
    open_video_file(path).close()


def _reason(file: BinaryIO) -> str:
    if not file.read(1):
        return 'the file is empty'
    return 'not a video of a known container (mp4, mov, mkv, webm, avi, flv, ogg, wmv, gif, MPEG): damaged, or ' \
           'something else'
