"""Opening the files that the server hands out, whose paths come with an index."""
import logging
import os
from pathlib import PurePath
from typing import BinaryIO

from vop_mm.datasets.decoding import container_format
from vop_mm.datasets.video_files import VIDEO_EXTENSIONS
from vop_mm.index.catalogue import FileState
from vop_mm.utils.paths import open_below, path_below

_LOG = logging.getLogger(__package__)
# One text for all: whether a file is there that the page doesn't serve is nobody's business.
NOT_SERVED = ('the file has changed since it was indexed (index its folder again), is no video, or lies outside the '
            'folder of the videos (if links there lead to it: demo/app.py --follow-links)')


def open_served(folder: str, name: str, state: FileState, follow_links: bool = False) -> BinaryIO:
    """Open a video of an index, if it may be served: the index may be somebody else's.

    It is opened once, and everything is asked of the open file. It has the suffix of a video and begins as one does;
    size and time are those in the index; it lies in the folder.

    Args:
        folder (str): Of the videos.
        name (str): Path below it, from the index.
        state (FileState): What the index says of it.
        follow_links (bool): Serve also what links in the folder lead to elsewhere. Defaults to False.

    Returns:
        BinaryIO: The file.

    Raises:
        FileNotFoundError: It is not to be served. The message doesn't tell why.
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
    """A path to an open file for a process that was forked: no name is looked up again.

    Args:
        file (BinaryIO): The file. It has to stay open.
        fallback (str): Its path, where the system has no other.
    """
    path = f'/proc/{os.getpid()}/fd/{file.fileno()}'
    return path if os.path.exists(path) else fallback
