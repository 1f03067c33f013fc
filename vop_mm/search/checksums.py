"""Very fast checksums: sums of words, which detect every change within a word."""
import zlib
from collections.abc import Sequence

import numpy as np

BLOCK = 1 << 20  # bytes of a file that are summed at once


def clip_checksums(files: Sequence[int], times: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Compute checksums of clips from numbers of files [n], times float64 [n, 2] and vectors float32 [n, D].

    Returns:
        np.ndarray: int64 [n].
    """
    words = (np.ascontiguousarray(rows, kind).view('<u4') for rows, kind in ((times, '<f8'), (vectors, '<f4')))
    return sum(rows.sum(axis=1, dtype=np.int64) for rows in words) + np.asarray(files, np.int64)


def text_checksum(*values: object) -> int:
    """Compute a checksum of the text of a few plain values."""
    return zlib.crc32(ascii(values).encode())


def next_checksum(block: bytes, checksum: int = 0) -> int:
    """Update a file's checksum with its next block: ``BLOCK`` bytes, or the remainder at the end of the file."""
    whole = len(block) // 8
    total = np.frombuffer(block, '<u8', whole).sum(dtype=np.uint64)
    return zlib.crc32(total.astype('<u8').tobytes() + block[8 * whole:], checksum)
