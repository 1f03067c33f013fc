"""Files that a user named, looked for at once; and opening files whose names come with data, which is others'."""
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def require_file(path: str | Path | None, what: str = 'checkpoint') -> None:
    """Look for a file.

    Args:
        path (str | Path, optional): The file; None for none. An address with a scheme is left to who reads it.
        what (str): What it is, for the message; ``''`` for any file. Defaults to ``'checkpoint'``.

    Raises:
        FileNotFoundError: There is none.
    """
    if path is not None and '://' not in str(path) and not os.path.isfile(os.path.expanduser(path)):
        raise FileNotFoundError(f'{what} not found: {path}' if what else f'no such file: {path}')


def require_videos(path: str) -> None:
    """Look for a folder of videos, or a manifest of them. An address with a scheme is left to who reads it.

    Raises:
        FileNotFoundError: There is none.
    """
    if '://' not in path and not os.path.exists(path or '.'):
        raise FileNotFoundError(f'no such folder of videos: {path}')


def require_folder(path: str | Path | None) -> None:
    """Look for the folder of a file that is to be written when the work is done.

    Args:
        path (str | Path, optional): The file; None for none.

    Raises:
        FileNotFoundError: There is none.
    """
    if path is not None and not Path(path).parent.is_dir():
        raise FileNotFoundError(f'no such folder: {Path(path).parent}')


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read, at once: what could block or act on being read (a FIFO, a device, a socket) is refused.

    Args:
        path (str | Path): The file; links are followed.

    Returns:
        BinaryIO: The file.

    Raises:
        OSError: It can't be opened, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, 'not a regular file', str(path))
    return open(os.fspath(path), 'rb', opener=lambda *_: handle)  # under its name, where the system can't tell it


def path_below(folder: str | Path, name: str) -> str:
    """Join a folder and a path that came with data.

    Args:
        folder (str | Path): What the path has to stay in.
        name (str): Relative, with ``/`` between its parts.

    Returns:
        str: The joined path; nothing was looked up.

    Raises:
        ValueError: The path is empty or absolute, climbs out of the folder, or holds a NUL.
    """
    parts = name.split('/')
    if not name or name.startswith('/') or '..' in parts or '\0' in name:
        raise ValueError(f'the path {name!r} leads out of the folder {folder}')
    return os.path.join(folder, name)


def open_below(folder: str | Path, name: str, follow_links: bool = False) -> BinaryIO:
    """Open a file under a path that came with data.

    It is opened once. Where it lies is asked of the open file, so that nobody can put a link in between.

    Args:
        folder (str | Path): What the file has to lie in. It may be a link itself.
        name (str): As in :func:`path_below`.
        follow_links (bool): Allow links in the folder that lead out of it. Defaults to False.

    Returns:
        BinaryIO: The file, to read.

    Raises:
        ValueError: The path, or a link on its way, leads out of the folder.
        OSError: It can't be opened, or is no regular file.
    """
    file = open_regular(path_below(folder, name))
    if not follow_links and not _is_inside(_place_of(file), os.path.realpath(folder)):
        file.close()
        raise ValueError(f'the path {name!r} is a link that leads out of the folder {folder}')
    return file


def _place_of(file: BinaryIO) -> str:
    """Where an open file lies."""
    if os.path.isdir('/proc/self/fd'):
        return os.readlink(f'/proc/self/fd/{file.fileno()}')
    return os.path.realpath(file.name)


def _is_inside(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ''))
