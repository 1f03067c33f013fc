"""Lock files: one process at a time."""
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# errors of file systems without locks, where processes can't exclude each other
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
# (process, file). A POSIX lock doesn't separate threads of one process, and is released when the process closes any
# other handle of the file: the holder must not open it again.
_HELD: set[tuple[int, str]] = set()
_LOOKING = threading.Lock()
os.register_at_fork(before=_LOOKING.acquire, after_in_parent=_LOOKING.release, after_in_child=_LOOKING.release)


@contextmanager
def locked(path: str | Path, message: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock that ends with the process. The file is kept, and its content is not touched.

    Args:
        path (str | Path): Lock file, created if missing. Its folder must exist.
        message (str): Error message if another process holds the lock.
        wait (bool): Wait for a process that holds the lock. Defaults to False.

    Raises:
        BlockingIOError: Another process, or another thread of this one, holds the lock.
        OSError: The file can't be opened, is a link, or is not a regular file.
    """
    folder, name = os.path.split(os.path.abspath(path))
    name = os.path.join(os.path.realpath(folder), name)
    key = os.getpid(), name
    with _LOOKING:
        if key in _HELD:
            raise BlockingIOError(message)
        _HELD.add(key)
    try:
        # POSIX instead of flock, which decoding processes would inherit; these outlive a killed parent by seconds.
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
