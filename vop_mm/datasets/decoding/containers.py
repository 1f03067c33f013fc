"""Files of which a decoder makes other frames than those asked for, known by their own bytes before it opens them.

What is said here was measured with decord 0.6.0 and torchcodec 0.17 on files whose frames have their index painted in;
``tests/test_datasets/test_decoding/test_readers.py`` repeats it.
"""
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from .packets import count_leading, packet_times

_HEAD = 8192
_ASF = bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c')
_NO_INDEX = (b'\x1a\x45\xdf\xa3', b'FLV')  # Matroska, WebM, Flash: when pictures are shown stands beside each of them
_MP4_STARTS = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'styp', b'pnot', b'uuid')
_PACKETS = 5  # so many in a row make it a transport stream
_MAX_FRAMES = 2**22  # a damaged index may claim thousands of millions

_Span = tuple[int, int]  # of a box's content: its first byte, and the one behind its last


def unfit_for_decord(path: str) -> str | None:
    """Why decord must not open a file: it would hand out wrong frames silently, or hang.

    Args:
        path (str): A file.

    Returns:
        str | None: The reason; None where decord is exact, or says itself that it can't read the file.

    Raises:
        OSError: The file can't be read.
    """
    with open(path, 'rb') as file:
        head = file.read(_HEAD)
        if head.startswith(_ASF):
            return 'a Windows Media file (ASF, WMV), in which decord seeks to wrong frames'
        if head[4:8] in _MP4_STARTS:
            return _mp4(file, path)
    if head.startswith(_NO_INDEX):
        return _leading(*packet_times(path))
    return _mpeg(head)


def unfit_for_torchcodec(path: str) -> str | None:
    """Why torchcodec must not open a file; as :func:`unfit_for_decord`.

    Args:
        path (str): A file.

    Returns:
        str | None: The reason, or None.

    Raises:
        OSError: The file can't be read.
    """
    with open(path, 'rb') as file:
        return _mpeg(file.read(_HEAD))


def _mpeg(head: bytes) -> str | None:
    """Streams without times one can rely on: neither decoder finds the frame of a number in them."""
    if head.startswith(b'\x00\x00\x01\xba'):
        return 'an MPEG program stream (MPEG-1, MPEG-2), in which decoders seek to wrong frames; convert it to mp4'
    if _is_transport_stream(head):
        return 'an MPEG transport stream, in which decoders seek to wrong frames or hang; convert it to mp4'
    return None


def _is_transport_stream(head: bytes) -> bool:
    # 188 bytes a packet, with a time stamp before it (m2ts) or a checksum behind it; the first one may be cut
    return any(head[first:first + size * _PACKETS:size] == b'\x47' * _PACKETS
               for size in (188, 192, 204) for first in range(size))


def _leading(times: np.ndarray, keys: np.ndarray) -> str | None:
    """decord numbers key frames as they are stored, which in open groups of pictures is not as they are shown."""
    count = count_leading(times, keys)
    if not count:
        return None
    return f'{count} frames are stored behind a key frame and shown before it, and decord seeks to wrong ones'


# -- mp4 and mov ------------------------------------------------------------------------------------------------------
def _mp4(file: BinaryIO, path: str) -> str | None:
    try:
        whole = (0, os.fstat(file.fileno()).st_size)
        for track in _find(file, whole, b'moov', b'trak'):
            if _read(file, _find(file, track, b'mdia', b'hdlr')[0])[8:12] == b'vide':
                times = _frame_times(file, track)
                if not len(times):  # a fragmented file has them elsewhere, and no hidden frames
                    return _leading(*packet_times(path))
                return _hidden_frames(file, whole, track, times) or _leading(times, _keys(file, track, len(times)))
    except (struct.error, ValueError, IndexError):
        pass  # damaged: the decoder says so
    return None


def _hidden_frames(file: BinaryIO, whole: _Span, track: _Span, times: np.ndarray) -> str | None:
    """Whether an edit list, which says what part is shown, hides frames: decord counts them, though FFmpeg doesn't hand
    them out.

    Ordinary files have edit lists too: with B-frames the first frame's time is not 0, and one edit starts there.
    """
    lists = _find(file, track, b'edts', b'elst')
    if not lists:
        return None
    parts = [part for part in _edits(_read(file, lists[0])) if part[1] >= 0]  # -1: nothing is shown for a while
    if len(parts) > 1:
        return f'an edit list puts it together of {len(parts)} parts, and decord counts its frames wrongly'
    if not parts:
        return None
    duration, start = parts[0]
    scale = _scale(file, track, b'mdia', b'mdhd') / _scale(file, whole, b'moov', b'mvhd')
    hidden = times < start
    if duration:
        hidden |= times >= start + duration * scale
    if not hidden.any():
        return None
    return (f'an edit list hides {hidden.sum()} of its {len(times)} frames (it was cut without encoding it again), '
            'and decord counts them')


def _frame_times(file: BinaryIO, track: _Span) -> np.ndarray:
    """When frames are shown, in ticks of the track, in the order of the file, int64 [n]."""
    table = _find(file, track, b'mdia', b'minf', b'stbl')[0]
    durations = _runs(_read(file, _find(file, table, b'stts')[0]))
    times = np.cumsum(durations) - durations
    offsets = _find(file, table, b'ctts')
    return times + _runs(_read(file, offsets[0])) if offsets else times


def _keys(file: BinaryIO, track: _Span, count: int) -> np.ndarray:
    """Which of the frames, in the order of the file, are key frames, bool [n]."""
    lists = _find(file, track, b'mdia', b'minf', b'stbl', b'stss')
    if not lists:
        return np.ones(count, dtype=bool)
    keys = np.zeros(count, dtype=bool)
    body = _read(file, lists[0])
    keys[np.frombuffer(body, '>u4', struct.unpack_from('>I', body, 4)[0], offset=8).astype(np.int64) - 1] = True
    return keys


def _runs(body: bytes) -> np.ndarray:
    """Values that are stored as (how often, value), int64 [n]."""
    count, = struct.unpack_from('>I', body, 4)
    runs = np.frombuffer(body, '>u4', 2 * count, offset=8).reshape(count, 2)
    repeats = runs[:, 0].astype(np.int64)
    if repeats.sum() > _MAX_FRAMES:
        raise ValueError(f'{repeats.sum()} frames')
    return np.repeat(runs[:, 1].astype(np.int32).astype(np.int64), repeats)


def _edits(body: bytes) -> list[tuple[int, int]]:
    """(duration in ticks of the movie, start in ticks of the track) of every part."""
    entry = '>QqI' if body[0] == 1 else '>IiI'
    count, = struct.unpack_from('>I', body, 4)
    size = struct.calcsize(entry)
    return [struct.unpack_from(entry, body, 8 + i * size)[:2] for i in range(min(count, len(body) // size))]


def _scale(file: BinaryIO, span: _Span, *kinds: bytes) -> int:
    """Ticks per second of a movie or a track."""
    body = _read(file, _find(file, span, *kinds)[0])
    return struct.unpack_from('>I', body, 20 if body[0] == 1 else 12)[0] or 1


def _find(file: BinaryIO, span: _Span, *kinds: bytes) -> list[_Span]:
    """All boxes below ``span`` under this path of kinds."""
    spans = [span]
    for kind in kinds:
        spans = [found for outer in spans for name, found in _boxes(file, outer) if name == kind]
    return spans


def _boxes(file: BinaryIO, span: _Span) -> Iterator[tuple[bytes, _Span]]:
    start, stop = span
    while start + 8 <= stop:
        file.seek(start)
        size, kind = struct.unpack('>I4s', file.read(8))
        first = start + 8
        if size == 1:
            size, = struct.unpack('>Q', file.read(8))
            first += 8
        end = stop if size == 0 else start + size
        if end < first or end > stop:
            return  # damaged, or cut off
        yield kind, (first, end)
        start = end


def _read(file: BinaryIO, span: _Span) -> bytes:
    file.seek(span[0])
    return file.read(span[1] - span[0])
