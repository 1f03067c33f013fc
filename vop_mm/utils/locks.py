"""Lock files: one process at a time."""
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# errors of file systems that have no locks: there is nothing to be kept apart with
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
# (process, file). A POSIX lock doesn't keep threads of one process apart, and is gone when the process closes any other
# handle of the file: who holds one must not open it again.
_HELD: set[tuple[int, str]] = set()
_LOOKING = threading.Lock()
os.register_at_fork(before=_LOOKING.acquire, after_in_parent=_LOOKING.release, after_in_child=_LOOKING.release)


@contextmanager
def locked(path: str | Path, message: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock that ends with the process. The file stays, and what is in it is not touched.

    Args:
        path (str | Path): The lock file, made when it isn't there. Its folder must exist.
        message (str): Of the error where another process holds it.
        wait (bool): Wait for a process that holds it. Defaults to False.

    Raises:
        BlockingIOError: Another process, or another thread of this one, holds it.
        OSError: The file can't be opened, is a link, or is no regular file.
    """
    folder, name = os.path.split(os.path.abspath(path))
    name = os.path.join(os.path.realpath(folder), name)
    key = os.getpid(), name
    with _LOOKING:
        if key in _HELD:
            raise BlockingIOError(message)
        _HELD.add(key)
    try:
        # A POSIX lock: one of flock is inherited by the processes that decode, which outlive a killed parent by
        # seconds.
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, 'not a regular file', name)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except (BlockingIOError, PermissionError):
                raise BlockingIOError(message) from None
            except OSError as e:
                if e.errno not in _NO_LOCKS:
                    raise
            yield
        finally:
            os.close(handle)
    finally:
        _HELD.discard(key)
