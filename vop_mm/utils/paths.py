"""Check that files named by a user exist, and safely open files whose names come from untrusted data."""
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def require_file(path: str | Path | None, what: str = 'checkpoint') -> None:
    """Check that a file exists.

    Args:
        path (str | Path, optional): Path of the file; None is accepted. Addresses with a scheme are not checked.
        what (str): Description for the error message; ``''`` for any file. Defaults to ``'checkpoint'``.

    Raises:
        FileNotFoundError: The file is missing.
    """
    if path is not None and '://' not in str(path) and not os.path.isfile(os.path.expanduser(path)):
        raise FileNotFoundError(f'{what} not found: {path}' if what else f'no such file: {path}')


def require_videos(path: str) -> None:
    """Check that a folder or manifest of videos exists. Addresses with a scheme are not checked.

    Raises:
        FileNotFoundError: The path is missing.
    """
    if '://' not in path and not os.path.exists(path or '.'):
        raise FileNotFoundError(f'video folder not found: {path}')


def require_folder(path: str | Path | None) -> None:
    """Check that the folder of an output file exists.

    Args:
        path (str | Path, optional): Path of the file; None is accepted.

    Raises:
        FileNotFoundError: The folder is missing.
    """
    if path is not None and not Path(path).parent.is_dir():
        raise FileNotFoundError(f'no such folder: {Path(path).parent}')


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading without blocking; everything but regular files (a FIFO, a device, a socket) is refused.

    Args:
        path (str | Path): Path of the file; links are followed.

    Returns:
        BinaryIO: The open file.

    Raises:
        OSError: The file can't be opened, or is not a regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, 'not a regular file', str(path))
    return open(os.fspath(path), 'rb', opener=lambda *_: handle)  # by its name, for systems that can't resolve a handle


def path_below(folder: str | Path, name: str) -> str:
    """Join a folder and a path that comes from untrusted data.

    Args:
        folder (str | Path): Folder that the path must stay in.
        name (str): Relative path, with ``/`` between its parts.

    Returns:
        str: The joined path. The file system is not accessed.

    Raises:
        ValueError: The path is empty or absolute, leads out of the folder, or contains a NUL.
    """
    parts = name.split('/')
    if not name or name.startswith('/') or '..' in parts or '\0' in name:
        raise ValueError(f'the path {name!r} leads out of the folder {folder}')
    return os.path.join(folder, name)


def open_below(folder: str | Path, name: str, follow_links: bool = False) -> BinaryIO:
    """Open a file by a path that comes from untrusted data.

    The location is checked on the open file, so that no link can be swapped in.

    Args:
        folder (str | Path): Folder that must contain the file. It may be a link itself.
        name (str): Relative path; see :func:`path_below`.
        follow_links (bool): Allow links in the folder that lead out of it. Defaults to False.

    Returns:
        BinaryIO: The file, open for reading.

    Raises:
        ValueError: The path, or a link in it, leads out of the folder.
        OSError: The file can't be opened, or is not a regular file.
    """
    file = open_regular(path_below(folder, name))
    if not follow_links and not _is_inside(_place_of(file), os.path.realpath(folder)):
        file.close()
        raise ValueError(f'the path {name!r} is a link that leads out of the folder {folder}')
    return file


def _place_of(file: BinaryIO) -> str:
    if os.path.isdir('/proc/self/fd'):
        return os.readlink(f'/proc/self/fd/{file.fileno()}')
    return os.path.realpath(file.name)


def _is_inside(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ''))
