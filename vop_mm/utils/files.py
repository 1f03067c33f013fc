"""Files that are whole or not there: written beside, then renamed."""
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmengine.fileio import LocalBackend, register_backend


@contextmanager
def atomic_write(path: str | Path, mode: str = 'wb') -> Iterator[IO]:
    """Open a file that appears under its name only when everything is written.

    Killed at any moment, whatever was at ``path`` before is still there, whole; on an error nothing is left behind.

    Args:
        path (str | Path): The file. Its folder must exist.
        mode (str): ``'wb'`` or ``'w'``. Defaults to ``'wb'``.

    Yields:
        IO: The file to write to.

    Raises:
        OSError: No space, no permission, no such folder.
    """
    path = Path(path)
    handle, beside = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.tmp', dir=path.parent)
    try:
        with os.fdopen(handle, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)  # mkstemp's files are private
        os.replace(beside, path)
    except BaseException as e:
        with suppress(OSError):
            os.unlink(beside)
        if isinstance(e, OSError) and e.filename in (None, beside):
            e.filename = str(path)  # a write that fails doesn't say where
        raise


def full_disk_error(path: str | Path) -> OSError:
    """What the system raises where nothing fits any more, for libraries that say it in words of their own.

    Args:
        path (str | Path): What was being written.
    """
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


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
