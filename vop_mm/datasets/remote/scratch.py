"""Temporary copies of remote files: limited in size, and removed after use."""
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vop_mm.utils.files import temporary_folder

from ..decoding import Limits
from ..errors import VideoDecodeError

_WAIT = 600  # maximum seconds to wait until this process has released other files
_VARIABLE = 'VOP_MM_MAX_FETCHED'


class FileStat(NamedTuple):
    """Size and tag of a file, to notice a replaced one.

    Attributes:
        size (int, optional): Size in bytes; None: unknown until the file was read.
        tag (str, optional): The server's content tag (ETag), or else the modification time. None: neither is known.
    """
    size: int | None
    tag: str | None

    @property
    def number(self) -> int | None:
        """The tag as a number above 0 and below 2**48, stored in place of a local file's modification time."""
        if self.tag is None:
            return None
        return 1 + int.from_bytes(hashlib.blake2b(self.tag.strip('"').encode(), digest_size=6).digest(), 'big') // 2

    def differs_from(self, other: 'FileStat') -> bool:
        """Return True if the known values show that the content differs."""
        sizes, tags = zip(self, other)
        return (None not in sizes and sizes[0] != sizes[1]
                or None not in tags and tags[0].strip('"') != tags[1].strip('"'))


class _Room:
    """Disk space taken by the remote files that this process holds."""

    def __init__(self) -> None:
        self.changed, self.used = threading.Condition(), 0

    @contextmanager
    def take(self, shown: str, size: int, limit: int) -> Iterator[None]:
        end = time.monotonic() + _WAIT
        with self.changed:
            while self.used + size > limit:
                if not self.changed.wait(end - time.monotonic()):
                    raise VideoDecodeError(shown, f'no space to download it: other files take {self.used:,} of '
                                           f'{limit:,} bytes ({_VARIABLE})')
            self.used += size
        try:
            yield
        finally:
            with self.changed:
                self.used -= size
                self.changed.notify_all()


_room = _Room()


def _forget_others() -> None:
    """Start afresh in a forked process: the files, and the lock's holder, belong to the parent."""
    global _room
    _room = _Room()


os.register_at_fork(after_in_child=_forget_others)


@contextmanager
def scratch_file(shown: str, name: str, size: int | None, chunks: Iterable[bytes],
                 limit: int | None = None) -> Iterator[str]:
    """Write content to a temporary file that exists within the context.

    The files that a process holds at once take no more than the limit together: a file that would exceed it waits until
    others are released. Files left by a killed process are removed by the next one.

    Args:
        shown (str): Name for error messages.
        name (str): File name, whose extension is kept.
        size (int, optional): Expected number of bytes in ``chunks``. None: unknown, so the full limit is reserved.
        chunks (Iterable[bytes]): The content.
        limit (int, optional): Limit in bytes. None: ``VOP_MM_MAX_FETCHED``.

    Yields:
        str: Path of the temporary file.

    Raises:
        VideoDecodeError: The content exceeds the limit or does not have the expected size.
        OSError: The file can't be written.
    """
    limit = limit or Limits.current().fetched
    if (size or 0) > limit:
        raise VideoDecodeError(shown, f'{size:,} bytes are too many to download: the limit is {limit:,} ({_VARIABLE})')
    extension = re.search(r'(\.[A-Za-z0-9]{1,8})?$', name)[0]
    with _room.take(shown, limit if size is None else size, limit), temporary_folder(None, 'fetched') as folder:
        path = os.path.join(folder, f'video{extension}')
        written = 0
        with open(path, 'wb') as file:
            for chunk in chunks:
                written += len(chunk)
                if written > limit:
                    raise VideoDecodeError(shown, f'it is larger than the limit of {limit:,} bytes ({_VARIABLE})')
                if size is not None and written > size:
                    break
                file.write(chunk)
        if size not in (None, written):
            raise VideoDecodeError(shown, f'expected {size:,} bytes and has '
                                   f'{"more" if written > size else f"{written:,}"}')
        yield path
