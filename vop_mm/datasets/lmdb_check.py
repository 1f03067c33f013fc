"""Check that an LMDB file is intact: LMDB trusts every number in it, and a wrong one crashes the process.

The layout is that of LMDB 0.9 on 64-bit machines, the only one in use (``lmdb.h``, ``mdb.c``).
"""
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from vop_mm.utils.paths import open_regular

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEAD, _NODE = 16, 8  # bytes of a page header, and of a node header before its key
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8  # page types
_DIRTY = 0x10
_ELSEWHERE = 1  # node flag: the value has its own pages
_INTEGER_KEYS = 8
_NONE = 2**64 - 1
_MAX_DEPTH, _MAX_KEY = 32, 511  # LMDB's own limits
_DATABASE = struct.Struct('<I2H5Q')  # page size, flags, depth, branch, leaf and overflow pages, entries, root


class DamagedError(ValueError):
    """An LMDB file is cut off or contains wrong numbers. The message says what is wrong."""


def check_lmdb(path: str, writing: bool = False) -> None:
    """Check the page tree of an LMDB file without LMDB.

    Of values that have their own pages, only the position is checked, so thousands of them take milliseconds.

    Args:
        path (str): Path of the file.
        writing (bool): Also check what matters for writing. Defaults to False.

    Raises:
        DamagedError: LMDB would read beyond the end of the file, or crash in another way.
        ValueError: The file is not an LMDB file.
        OSError: The file can't be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        free, main, last = _newest_meta(file, size)
        page_size = free[0]
        if (last + 1) * page_size > size:
            raise DamagedError(f'cut off: {size:,} of {(last + 1) * page_size:,} bytes are there')
        tree = _Tree(file, page_size, last, writing)
        if main[1] != 0 or free[1] & 0x7fff != _INTEGER_KEYS:
            raise DamagedError('its databases are of another kind')
        for _ in tree.values(main):
            pass
        if writing:
            for value in tree.values(free, whole=True):
                tree.claim_free(value)
            tree.check_overlaps()


def _newest_meta(file: BinaryIO, size: int) -> tuple[tuple, tuple, int]:
    """Return the free-page database, the main database and the last used page."""
    metas, page_size = [], 0
    for number in range(2):
        file.seek(number * page_size)
        page = file.read(152)
        if number == 0 and len(page) == 152 and struct.unpack_from('<2I', page, _HEAD) != (_MAGIC, _VERSION):
            raise ValueError('not an LMDB file')
        if len(page) < 152:
            raise DamagedError(f'cut off: only {size:,} bytes are there')
        flags, = struct.unpack_from('<H', page, 10)
        free, main = (_DATABASE.unpack_from(page, _HEAD + 24 + 48 * i) for i in range(2))
        last, transaction = struct.unpack_from('<2Q', page, _HEAD + 120)
        page_size = page_size or free[0]
        if (not flags & _META or struct.unpack_from('<2I', page, _HEAD) != (_MAGIC, _VERSION)
                or page_size != free[0] or page_size & page_size - 1 or not 512 <= page_size <= 65536 or last < 1):
            raise DamagedError(f'page {number} is damaged')
        metas.append((transaction, free, main, last))
    return max(metas, key=lambda meta: meta[0])[1:]


class _Tree:
    """The page tree of a file."""

    def __init__(self, file: BinaryIO, page_size: int, last: int, writing: bool) -> None:
        self.file, self.page_size, self.last, self.writing = file, page_size, last, writing
        self.nodes: set[int] = set()  # pages of the trees
        self.spans: list[tuple[int, int]] = []  # other pages: first page and count

    def values(self, database: tuple, whole: bool = False) -> Iterator[bytes]:
        """Yield the values stored next to their keys; with ``whole`` also those that have their own pages."""
        _, _, depth, *_, root = database
        if depth > _MAX_DEPTH:
            raise DamagedError('a database is too deep')
        if root != _NONE:
            yield from self._below(root, depth, whole)
        elif depth:
            raise DamagedError('a database has no first page')

    def _below(self, number: int, depth: int, whole: bool) -> Iterator[bytes]:
        kind = _LEAF if depth == 1 else _BRANCH
        page = self._page(number, kind)
        for start, size, flags, key_size in self._nodes(number, page, kind):
            if kind == _BRANCH:
                yield from self._below(size | flags << 32, depth - 1, whole)
                continue
            first = start + _NODE + key_size
            if flags & _ELSEWHERE:
                place, = struct.unpack_from('<Q', page, first)
                self._check_value(place, size)
                if whole:
                    self.file.seek(place * self.page_size + _HEAD)
                    yield self.file.read(size)
            else:
                yield page[first:first + size]

    def _page(self, number: int, kind: int) -> bytes:
        self._check_place(number, 1)
        if number in self.nodes:
            raise DamagedError(f'page {number} is used twice')
        self.nodes.add(number)
        self.file.seek(number * self.page_size)
        page = self.file.read(self.page_size)
        there, _, flags, lower, upper = struct.unpack_from('<Q4H', page)
        count = (lower - _HEAD) // 2
        if (there != number or flags & ~_DIRTY != kind or lower % 2 or not _HEAD <= lower <= upper <= self.page_size
                or count < (2 if kind == _BRANCH else 1)):
            raise DamagedError(f'page {number} is damaged')
        return page

    def _nodes(self, number: int, page: bytes, kind: int) -> list[tuple[int, int, int, int]]:
        """Return for each node its start, page number (low 32 bits) or value size, flags, and key size."""
        lower, upper = struct.unpack_from('<2H', page, 12)
        nodes, spans = [], []
        for start in struct.unpack_from(f'<{(lower - _HEAD) // 2}H', page, _HEAD):
            if not upper <= start <= self.page_size - _NODE:
                raise DamagedError(f'page {number} is damaged')
            low, high, flags, key_size = struct.unpack_from('<4H', page, start)
            size = low | high << 16
            beside = 0 if kind == _BRANCH else 8 if flags & _ELSEWHERE else size  # bytes after the key
            nodes.append((start, size, flags, key_size))
            spans.append((start, start + _NODE + key_size + beside))
            if spans[-1][1] > self.page_size or key_size > _MAX_KEY or kind == _LEAF and flags & ~_ELSEWHERE:
                raise DamagedError(f'page {number} is damaged')
        spans.sort()
        if any(end > start for (_, end), (start, _) in zip(spans, spans[1:])):  # a writer moves nodes around
            raise DamagedError(f'page {number} is damaged')
        return nodes

    def _check_value(self, first: int, size: int) -> None:
        count = -(-(_HEAD + size) // self.page_size)
        self._check_place(first, count)
        if self.writing:  # a writer that frees the pages trusts this header
            self.file.seek(first * self.page_size)
            there, _, flags, pages = struct.unpack('<Q2HI', self.file.read(_HEAD))
            if there != first or flags & ~_DIRTY != _OVERFLOW or pages < count:
                raise DamagedError(f'page {first} is damaged')
            self._check_place(first, pages)
            self.spans.append((first, pages))

    def claim_free(self, value: bytes) -> None:
        """Record the pages that are free for writing: their count, followed by each page number."""
        numbers = struct.unpack(f'<{len(value) // 8}Q', value[:len(value) // 8 * 8])
        if not numbers or numbers[0] > len(numbers) - 1:
            raise DamagedError('the list of free pages is damaged')
        for page in numbers[1:1 + numbers[0]]:
            self._check_place(page, 1)
            self.spans.append((page, 1))

    def check_overlaps(self) -> None:
        """Check that no page is used twice."""
        end = 0
        for first, count in sorted([*self.spans, *((page, 1) for page in self.nodes)]):
            if first < end:
                raise DamagedError(f'page {first} is used twice')
            end = first + count

    def _check_place(self, first: int, count: int) -> None:
        if first < 2 or first + count - 1 > self.last:
            raise DamagedError(f'it names page {first + count - 1} of {self.last + 1}')
