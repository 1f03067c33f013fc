"""Files and folders that are whole or not there: written under a temporary name, then renamed.

A temporary name is locked by its owner for as long as the owner lives. What is not locked was left by a run that was
killed, and the next run that writes into the same folder removes it.
"""
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmengine.fileio import LocalBackend, register_backend

_TEMPORARY = re.compile(r'\.vop_mm\.[0-9a-f]{16}\..*\.tmp', re.DOTALL)
_MAX_NAME = 255  # bytes, of most file systems
_CLEANED: set[tuple[int, str]] = set()  # (process, folder)
_OWN: set[tuple[int, Path]] = set()  # (process, path) of what is being written


@contextmanager
def atomic_write(path: str | Path, mode: str = 'wb') -> Iterator[IO]:
    """Open a file that appears under its name only when everything is written.

    Killed at any moment, whatever was at ``path`` before is still there, whole; on an error nothing is left behind. A
    link at ``path`` is replaced, never written through.

    Args:
        path (str | Path): The file. Its folder must exist.
        mode (str): ``'wb'`` or ``'w'``. Defaults to ``'wb'``.

    Yields:
        IO: The file to write to.

    Raises:
        OSError: No space, no permission, no such folder.
    """
    with atomic_path(path) as beside, open(beside, mode, encoding=None if 'b' in mode else 'utf-8') as file:
        yield file


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary file in the same folder, for a program or a library that takes a name; renamed on success.

    Args:
        path (str | Path): The file to make. Its folder must exist.

    Yields:
        Path: An empty file to write to. It must stay the same file: written to, not replaced.

    Raises:
        OSError: No space, no permission, no such folder.
    """
    path = Path(path)
    remove_leftovers(path.parent, once=True)
    try:
        handle, beside = _make_locked(path.parent, path.name, _make_file)
    except OSError as e:
        e.filename = str(path)  # the temporary name says nothing
        raise
    try:
        yield beside
        os.fsync(handle)
        os.replace(beside, path)
    except BaseException as e:
        with suppress(OSError):
            os.unlink(beside)
        if isinstance(e, OSError) and e.errno and e.filename in (None, str(beside)):
            e.filename = str(path)  # a write that fails doesn't say where
        raise
    finally:
        _release(handle, beside)


@contextmanager
def temporary_folder(parent: str | Path | None, name: str) -> Iterator[Path]:
    """A folder that is gone afterwards, with all that was not moved out of it.

    Args:
        parent (str | Path, optional): Where to make it, so that what is made there can be renamed into its place. None:
            among the system's temporary files, where nobody else may look into it.
        name (str): What it is for, as part of its name.

    Yields:
        Path: The folder; it may be renamed as a whole.

    Raises:
        OSError: No space, no permission, no such parent.
    """
    private = parent is None
    parent = Path(tempfile.gettempdir() if private else parent)
    remove_leftovers(parent, once=True)
    handle, folder = _make_locked(parent, name, _make_private_folder if private else _make_folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _release(handle, folder)


def remove_leftovers(folder: str | Path, once: bool = False) -> None:
    """Remove what killed runs left half written in a folder. What a running process writes stays.

    Args:
        folder (str | Path): Looked at without the folders below it.
        once (bool): Do nothing where this process has looked before. Defaults to False.
    """
    key = os.getpid(), os.path.abspath(folder)
    if once and key in _CLEANED:
        return
    _CLEANED.add(key)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and not entry.is_symlink():
                with suppress(OSError):  # locked by its owner, or removed by another process
                    _remove_unlocked(entry.path)


def remove_own() -> None:
    """Remove what this process is writing, as the last thing before it ends without unwinding."""
    for pid, path in list(_OWN):
        if pid == os.getpid():
            with suppress(OSError):
                _remove(path)


def full_disk_error(path: str | Path) -> OSError:
    """What the system raises where nothing fits any more, for libraries that say it in words of their own.

    Args:
        path (str | Path): What was being written.
    """
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _make_locked(parent: Path, name: str, make: Callable[[Path], int | None]) -> tuple[int, Path]:
    """Make something under a temporary name and lock it. Returns its handle and its path."""
    while True:
        head = f'.vop_mm.{secrets.token_hex(8)}.'
        room = _MAX_NAME - len(head) - len('.tmp')
        path = parent / (head + os.fsdecode(os.fsencode(name)[:room]) + '.tmp')
        _OWN.add((os.getpid(), path))  # before it is there: an interrupt may come at any time
        try:
            handle = make(path)
        except OSError:
            _OWN.discard((os.getpid(), path))
            raise
        if handle is None:
            continue
        with suppress(OSError):  # a file system without locks: what a killed run leaves there, stays
            fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # a process that cleans up may have been faster than the lock
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle, path
        _release(handle, path)


def _release(handle: int, path: Path) -> None:
    os.close(handle)
    _OWN.discard((os.getpid(), path))


def _make_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _make_private_folder(path: Path) -> int | None:
    return _make_folder(path, 0o700)


def _make_folder(path: Path, mode: int = 0o777) -> int | None:
    path.mkdir(mode)
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # a process that cleans up was faster
        return None


def _remove_unlocked(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    finally:
        os.close(handle)


def _remove(path: str | Path) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """MMEngine's local storage, with writes that are whole or not there: ``backend_args=dict(backend='atomic')``."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; the folder is made when it isn't there."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(filepath) as file:
            file.write(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text; the folder is made when it isn't there."""
        self.put(obj.encode(encoding), filepath)
