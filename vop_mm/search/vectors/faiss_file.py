"""Read and write FAISS indexes in files, limited to two types and validated before FAISS's reader sees them.

FAISS reads far more types, some of which name other files and write to them. The file ends with a checksum after the
part that FAISS reads.
"""
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vop_mm.utils.files import atomic_path
from vop_mm.utils.paths import open_below

from ..checksums import BLOCK, next_checksum

_END = struct.Struct('<8sQ')
_MAGIC = b'vop_mm.1'


def write_vectors(index, path: str | Path) -> None:
    """Write a FAISS index, IndexIDMap of IndexFlatIP or IndexIVFFlat; a link is replaced."""
    import faiss
    with atomic_path(path) as beside, open(beside, 'r+b') as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        file.seek(0)
        checksum = 0
        while block := file.read(BLOCK):
            checksum = next_checksum(block, checksum)
        file.write(_END.pack(_MAGIC, checksum))


def read_vectors(path: str | Path, dim: int):
    """Read a FAISS index from :func:`write_vectors`. The file is only read, whatever it contains.

    Raises:
        ValueError: The file is damaged, something else, a link, or contains vectors of another length.
    """
    import faiss
    if os.path.islink(path):
        raise ValueError('a link')
    with open_below(Path(path).parent, Path(path).name) as file:
        length, expected, is_grouped = _check_layout(file, dim)
        reader = _Reader(file, length)
        source = faiss.PyCallbackIOReader(reader.read, BLOCK)
        if is_grouped:  # clusters are read one by one: the Python calls would take longer than the checksums
            source = faiss.BufferedIOReader(source, BLOCK)
        try:
            index = faiss.read_index(source)
        except (RuntimeError, MemoryError):
            raise ValueError('FAISS cannot read it') from None
    if reader.left or reader.checksum != expected:
        raise ValueError('wrong checksum')
    return index


class _Reader:
    """Passes a file to FAISS and computes its checksum in blocks of equal size."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self.left = file, length
        self._block, self._used = b'', 0
        self.checksum = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; only an empty result means the end."""
        if self._used == len(self._block) and self.left:
            self._block, self._used = self._file.read(min(BLOCK, self.left)), 0
            self.left -= len(self._block)
            self.checksum = next_checksum(self._block, self.checksum)
        part = self._block[self._used:self._used + size]  # the block itself, without a copy, if all of it is requested
        self._used += len(part)
        return part


def _check_layout(file: BinaryIO, dim: int) -> tuple[int, int, bool]:
    """Refuse everything that this project doesn't write; the message doesn't name the file.

    Returns:
        tuple[int, int, bool]: Number of bytes of FAISS's part, their checksum, and True if there are clusters.
    """
    size = file.seek(0, 2)
    file.seek(max(size - _END.size, 0))
    magic, checksum = _END.unpack(file.read(_END.size).rjust(_END.size))
    file.seek(0)
    fields = _Fields(file)
    kind = fields.name()
    if kind not in (b'IxMp', b'IwFl'):
        raise ValueError('unexpected type of index')
    count = fields.header(dim)
    if kind == b'IxMp':
        fields.flat(dim, count)
        fields.expect(count)
        fields.skip(8 * count)
    else:
        clusters = fields.integer()
        fields.integer()  # number of clusters to search
        fields.flat(dim, clusters)
        fields.expect(0, '<B')  # no map from ids to positions
        fields.expect(0)
        fields.expect(b'ilar', '<4s')
        fields.expect(clusters)
        fields.expect(4 * dim)
        fields.lists(clusters, count)
        fields.skip(count * (4 * dim + 8))
    length = file.tell()
    file.seek(0)
    if length == size:
        raise ValueError('written by an older version, without checksum')
    if (length, magic) != (size - _END.size, _MAGIC):
        raise ValueError('truncated, or followed by other data')
    return length, checksum, kind == b'IwFl'


class _Fields:
    """Parser for the fields that FAISS writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        file.seek(0)

    def name(self) -> bytes:
        return self._value('<4s')

    def integer(self) -> int:
        value = self._value('<Q')
        if value > self._size:  # no count is larger than the file
            raise ValueError('truncated')
        return value

    def expect(self, value: int | bytes, kind: str = '<Q') -> None:
        if self._value(kind) != value:
            raise ValueError('unexpected type of index')

    def header(self, dim: int) -> int:
        """Read an index header; return its number of vectors."""
        found = self._value('<i')
        if found != dim:
            raise ValueError(f'vectors have {found} values, not {dim}')
        count = self.integer()
        self._value('<16s')  # unused
        self.expect(1, '<B')  # trained
        self.expect(0, '<i')  # inner product
        return count

    def flat(self, dim: int, count: int) -> None:
        """Skip consecutive vectors."""
        self.expect(b'IxFI', '<4s')
        if self.header(dim) != count:
            raise ValueError('inconsistent counts')
        self.expect(dim * count)
        self.skip(4 * dim * count)

    def lists(self, clusters: int, count: int) -> None:
        """Read the number of vectors per cluster."""
        kind = self.name()
        sizes = self._integers()
        if kind == b'sprs':  # only non-empty clusters: number, size ...
            numbers, sizes = sizes[::2], sizes[1::2]
            if len(numbers) != len(sizes) or (numbers >= clusters).any() or (np.diff(numbers.astype('i8')) <= 0).any():
                raise ValueError('invalid cluster numbers')
        elif kind != b'full' or len(sizes) != clusters:
            raise ValueError('unexpected type of index')
        if (sizes > self._size).any() or int(sizes.sum()) != count:
            raise ValueError('inconsistent counts')

    def skip(self, size: int) -> None:
        if self._file.tell() + size > self._size:
            raise ValueError('truncated')
        self._file.seek(size, 1)

    def _integers(self) -> np.ndarray:
        count = self.integer()
        if self._file.tell() + 8 * count > self._size:
            raise ValueError('truncated')
        return np.frombuffer(self._file.read(8 * count), '<u8')

    def _value(self, kind: str):
        data = self._file.read(struct.calcsize(kind))
        if len(data) != struct.calcsize(kind):
            raise ValueError('truncated')
        return struct.unpack(kind, data)[0]
