"""Open the files that the server sends; their paths come from an index."""
import logging
import os
from pathlib import PurePath
from typing import BinaryIO

from vop_mm.datasets.decoding import container_format
from vop_mm.datasets.video_files import VIDEO_EXTENSIONS
from vop_mm.utils.paths import open_below, path_below

from ..catalogue import FileState

_LOG = logging.getLogger(__package__)
# The same text for all reasons, to not reveal if a file exists that the page doesn't serve.
NOT_SERVED = ('the file has changed since it was indexed (index its folder again), is not a video, or is outside of '
              'the video folder (for links: demo/app.py --follow-links)')


def open_served(folder: str, name: str, state: FileState, follow_links: bool = False) -> BinaryIO:
    """Open a video of an index if it may be served; the index may come from an untrusted source.

    The file is opened once, and all checks use the open file: it must have a video extension and begin like a video,
    its size and modification time must be those in the index, and it must be in the folder, unless links are followed.

    Raises:
        FileNotFoundError: The file may not be served. The message doesn't say why.
    """
    try:
        if PurePath(name).suffix.lower() not in VIDEO_EXTENSIONS:
            raise ValueError(name)
        path_below(folder, name)
        try:
            file = open_below(folder, name, follow_links)
        except ValueError:
            _LOG.warning('%s is a link to a file outside of the video folder: use --follow-links to serve it', name)
            raise
    except (OSError, ValueError):
        raise FileNotFoundError(NOT_SERVED) from None
    found = os.fstat(file.fileno())
    if (found.st_size, found.st_mtime_ns) != (state.size, state.mtime_ns) or not container_format(file):
        file.close()
        raise FileNotFoundError(NOT_SERVED)
    return file


def path_by_handle(file: BinaryIO, fallback: str) -> str:
    """Return a path to an open file for a forked process, without looking up its name again, if the system has one."""
    path = f'/proc/{os.getpid()}/fd/{file.fileno()}'
    return path if os.path.exists(path) else fallback
