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
NOT_SERVED = ('the file has changed since it was indexed (index its folder again), is no video, or lies outside the '
            'folder of the videos (if links there lead to it: demo/app.py --follow-links)')


def open_served(folder: str, name: str, state: FileState, follow_links: bool = False) -> BinaryIO:
    """Open a video of an index if it may be served; the index may come from an untrusted source.

    The file is opened once, and all checks use the open file: it must have a video extension and begin like a video,
    its size and modification time must be those in the index, and it must be in the folder.

    Args:
        folder (str): Folder of the videos.
        name (str): Relative path, from the index.
        state (FileState): Stored state of the file, from the index.
        follow_links (bool): Also serve files outside of the folder that links lead to. Defaults to False.

    Returns:
        BinaryIO: The open file.

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
            _LOG.warning('%s is a link that leads out of the folder of the videos: --follow-links serves it', name)
            raise
    except (OSError, ValueError):
        raise FileNotFoundError(NOT_SERVED) from None
    found = os.fstat(file.fileno())
    if (found.st_size, found.st_mtime_ns) != (state.size, state.mtime_ns) or not container_format(file):
        file.close()
        raise FileNotFoundError(NOT_SERVED)
    return file


def path_by_handle(file: BinaryIO, fallback: str) -> str:
    """Return a path to an open file for a forked process, without looking up its name again.

    Args:
        file (BinaryIO): The file, which must stay open.
        fallback (str): Path of the file, used if the system has no path by handle.
    """
    path = f'/proc/{os.getpid()}/fd/{file.fileno()}'
    return path if os.path.exists(path) else fallback
