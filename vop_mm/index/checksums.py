"""Checksums that cost next to nothing: sums of words, which notice every change within a word."""
import zlib
from collections.abc import Sequence

import numpy as np

BLOCK = 1 << 20  # bytes of a file that are summed at once


def clip_checksums(files: Sequence[int], times: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Checksum of each clip.

    Args:
        files (Sequence[int]): Number of each clip's file, [n].
        times (np.ndarray): Start and end of each, float64 [n, 2].
        vectors (np.ndarray): float32 [n, D].

    Returns:
        np.ndarray: int64 [n].
    """
    words = (np.ascontiguousarray(rows, kind).view('<u4') for rows, kind in ((times, '<f8'), (vectors, '<f4')))
    return sum(rows.sum(axis=1, dtype=np.int64) for rows in words) + np.asarray(files, np.int64)


def text_checksum(*values: object) -> int:
    """Checksum of a few plain values: of their text."""
    return zlib.crc32(ascii(values).encode())


def next_checksum(block: bytes, checksum: int = 0) -> int:
    """Checksum of a file up to and with a block.

    Args:
        block (bytes): ``BLOCK`` bytes, or at the end of the file what is left.
        checksum (int): Of the file up to the block. Defaults to 0, its beginning.
    """
    whole = len(block) // 8
    total = np.frombuffer(block, '<u8', whole).sum(dtype=np.uint64)
    return zlib.crc32(total.astype('<u8').tobytes() + block[8 * whole:], checksum)
