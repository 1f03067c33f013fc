"""The temporary place of fetched files: bounded, and empty again when nobody reads them."""
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

_WAIT = 600  # seconds that a file waits for others of this process to be done with
_VARIABLE = 'VOP_MM_MAX_FETCHED'


class FileStat(NamedTuple):
    """What tells a file from another under the same name.

    Attributes:
        size (int, optional): Bytes; None: not known before it was read.
        tag (str, optional): The server's mark of this content (ETag), or else the time of its last change. None: there
            is neither.
    """
    size: int | None
    tag: str | None

    @property
    def number(self) -> int | None:
        """The tag as a number above 0 and below 2**48, where the time of a local file is kept."""
        if self.tag is None:
            return None
        return 1 + int.from_bytes(hashlib.blake2b(self.tag.strip('"').encode(), digest_size=6).digest(), 'big') // 2

    def differs_from(self, other: 'FileStat') -> bool:
        """Whether what is known of both can't be of the same content."""
        sizes, tags = zip(self, other)
        return (None not in sizes and sizes[0] != sizes[1]
                or None not in tags and tags[0].strip('"') != tags[1].strip('"'))


class _Room:
    """How many bytes the fetched files of this process take."""

    def __init__(self) -> None:
        self.changed, self.used = threading.Condition(), 0

    @contextmanager
    def take(self, shown: str, size: int, limit: int) -> Iterator[None]:
        end = time.monotonic() + _WAIT
        with self.changed:
            while self.used + size > limit:
                if not self.changed.wait(end - time.monotonic()):
                    raise VideoDecodeError(shown, f'no room to fetch it: others take {self.used:,} of {limit:,} bytes '
                                           f'({_VARIABLE})')
            self.used += size
        try:
            yield
        finally:
            with self.changed:
                self.used -= size
                self.changed.notify_all()


_room = _Room()


def _forget_others() -> None:
    """In a forked process: files, and whoever holds the lock, are the parent's."""
    global _room
    _room = _Room()


os.register_at_fork(after_in_child=_forget_others)


@contextmanager
def scratch_file(shown: str, name: str, size: int | None, chunks: Iterable[bytes],
                 limit: int | None = None) -> Iterator[str]:
    """A temporary file with the content of another one, gone afterwards.

    The files that a process holds at once take no more than the limit together: one that would be too much waits until
    others are gone. What a killed process left is removed by the next one.

    Args:
        shown (str): What an error calls the file.
        name (str): Its name, of which the extension is kept.
        size (int, optional): Bytes that ``chunks`` will have. None: not known, so it may take all the room there is.
        chunks (Iterable[bytes]): The content.
        limit (int, optional): Bytes. None: ``VOP_MM_MAX_FETCHED``.

    Yields:
        str: The path.

    Raises:
        VideoDecodeError: It is larger than the limit, or has another size than was said.
        OSError: It can't be written.
    """
    limit = limit or Limits.current().fetched
    if (size or 0) > limit:
        raise VideoDecodeError(shown, f'{size:,} bytes are too many to fetch: the limit is {limit:,} ({_VARIABLE})')
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
            raise VideoDecodeError(shown, f'it was to have {size:,} bytes and has '
                                   f'{"more" if written > size else f"{written:,}"}')
        yield path
