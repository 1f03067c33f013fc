"""Write files and folders atomically: under a temporary name, then renamed.

A temporary name is locked for the lifetime of its owner. Unlocked ones were left by a killed run, and are removed by
the next run that writes to the same folder.
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
_MAX_NAME = 255  # bytes, in most file systems
_CLEANED: set[tuple[int, str]] = set()  # (process, folder)
_OWN: set[tuple[int, Path]] = set()  # (process, path) of everything being written


@contextmanager
def atomic_write(path: str | Path, mode: str = 'wb') -> Iterator[IO]:
    """Open a file that appears under its name only after everything is written.

    If the process is killed, the previous content of ``path`` is preserved; on an error nothing is left behind. A link
    at ``path`` is replaced, never written through.

    Args:
        path (str | Path): Path of the file. Its folder must exist.
        mode (str): ``'wb'`` or ``'w'``. Defaults to ``'wb'``.

    Yields:
        IO: The file to write to.

    Raises:
        OSError: No space, no permission, or no such folder.
    """
    with atomic_path(path) as beside, open(beside, mode, encoding=None if 'b' in mode else 'utf-8') as file:
        yield file


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Create a temporary file in the same folder, for code that needs a path; it is renamed on success.

    Args:
        path (str | Path): Final path of the file. Its folder must exist.

    Yields:
        Path: An empty file to write to. It must be written in place, not replaced.

    Raises:
        OSError: No space, no permission, or no such folder.
    """
    path = Path(path)
    remove_leftovers(path.parent, once=True)
    try:
        handle, beside = _make_locked(path.parent, path.name, _make_file)
    except OSError as e:
        e.filename = str(path)  # the temporary name is meaningless to the user
        raise
    try:
        yield beside
        os.fsync(handle)
        os.replace(beside, path)
    except BaseException as e:
        with suppress(OSError):
            os.unlink(beside)
        if isinstance(e, OSError) and e.errno and e.filename in (None, str(beside)):
            e.filename = str(path)  # a failed write doesn't name the file
        raise
    finally:
        _release(handle, beside)


@contextmanager
def temporary_folder(parent: str | Path | None, name: str) -> Iterator[Path]:
    """Create a folder that is removed afterwards, with everything that was not moved out of it.

    Args:
        parent (str | Path, optional): Parent folder; its content can then be renamed to its final place. None: the
            system's temporary folder, with access for this user only.
        name (str): Purpose, used as part of its name.

    Yields:
        Path: The folder, which may be renamed as a whole.

    Raises:
        OSError: No space, no permission, or no such parent.
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
    """Remove half-written files and folders of killed runs. Those of running processes are kept.

    Args:
        folder (str | Path): Folder to clean, without its subfolders.
        once (bool): Do nothing if this process has already cleaned the folder. Defaults to False.
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
    """Remove everything that this process is writing, just before it exits without unwinding."""
    for pid, path in list(_OWN):
        if pid == os.getpid():
            with suppress(OSError):
                _remove(path)


def full_disk_error(path: str | Path) -> OSError:
    """Build the error of a full disk, for libraries that report it in their own words.

    Args:
        path (str | Path): File that was being written.
    """
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _make_locked(parent: Path, name: str, make: Callable[[Path], int | None]) -> tuple[int, Path]:
    """Create something under a temporary name and lock it; return its handle and path."""
    while True:
        head = f'.vop_mm.{secrets.token_hex(8)}.'
        room = _MAX_NAME - len(head) - len('.tmp')
        path = parent / (head + os.fsdecode(os.fsencode(name)[:room]) + '.tmp')
        _OWN.add((os.getpid(), path))  # before it exists: an interrupt may come at any time
        try:
            handle = make(path)
        except OSError:
            _OWN.discard((os.getpid(), path))
            raise
        if handle is None:
            continue
        with suppress(OSError):  # a file system without locks, where remains of killed runs are kept
            fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):  # another process that cleans up may have been faster than the lock
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
    except FileNotFoundError:  # another process that cleans up was faster
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
    """MMEngine's local backend with atomic writes: ``backend_args=dict(backend='atomic')``."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; create the folder if it is missing."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(filepath) as file:
            file.write(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text; create the folder if it is missing."""
        self.put(obj.encode(encoding), filepath)
