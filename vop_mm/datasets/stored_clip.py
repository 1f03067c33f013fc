"""Stored form of a clip: encoded frames, description and checksums."""
import io
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .decoding import Limits


def encode_frames(frames: Sequence[np.ndarray], quality: int | None = None) -> tuple[bytes, list[int] | None]:
    """Encode frames for a store.

    Args:
        frames (Sequence[np.ndarray]): uint8 [H, W, 3] each.
        quality (int, optional): JPEG quality, without chroma subsampling. None: uncompressed.

    Returns:
        tuple[bytes, list[int] | None]: All frames, and the length of each JPEG (None if uncompressed).
    """
    if quality is None:
        return np.stack(frames).tobytes(), None
    parts = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, 'jpeg', quality=quality, subsampling=0)
        parts.append(file.getvalue())
    return b''.join(parts), [len(part) for part in parts]


def check_info(info: dict) -> None:
    """Raise an error (of any type) if a description does not have the form that :meth:`FrameStore.info` documents."""
    _check_numbers(info['source'], 2, lowest=-1)
    if 'unreadable' in info:
        if not isinstance(info['unreadable'], str):
            raise ValueError('the reason is not a string')
        return
    count, height, width, channels = _check_numbers(info['shape'], 4, lowest=1)
    if channels != 3 or height * width > Limits.current().pixels:
        raise ValueError(f'frames of {width} x {height} pixels, {channels} colors')
    if info['lengths'] is not None:
        _check_numbers(info['lengths'], count)
    _check_numbers([info['total_frames']], 1, lowest=1)
    times = info['frame_times']
    if not isinstance(times, list) or len(times) != count or not np.isfinite(np.array(times, np.float64)).all():
        raise ValueError(f'not {count} times')


def _check_numbers(values: list, count: int, lowest: int = 0) -> list[int]:
    if (not isinstance(values, list) or len(values) != count
            or any(type(value) is not int or not lowest <= value < 2**53 for value in values)):
        raise ValueError(f'not {count} whole numbers')
    return values


def split_frames(data: bytes, info: dict) -> np.ndarray | list[bytes]:
    """Split stored data into a clip's frames, [n, H, W, 3], or its JPEGs.

    Raises:
        ValueError, TypeError: The data is missing or has the wrong size.
    """
    if info['lengths'] is None:
        return np.frombuffer(data, np.uint8).reshape(info['shape'])
    stops = np.cumsum([0, *info['lengths']])
    if stops[-1] != len(data):
        raise ValueError(f'{len(data)} bytes, not {stops[-1]}')
    return [data[a:b] for a, b in zip(stops[:-1], stops[1:])]


def checksums(parts: np.ndarray | Sequence[bytes]) -> np.ndarray:
    """Return a checksum of each frame, uint64 [n].

    JPEGs get a CRC. For uncompressed frames, a CRC would take ten times as long as reading them; the sum of their words
    also detects a flipped bit, at a twentieth of the loading time.
    """
    if not isinstance(parts, np.ndarray):
        return np.array([zlib.crc32(part) for part in parts], np.uint64)
    rows = np.ascontiguousarray(parts).reshape(len(parts), -1)
    whole = rows.shape[1] // 8 * 8
    return (rows[:, :whole].view('<u8').sum(axis=1, dtype=np.uint64)
            + rows[:, whole:].sum(axis=1, dtype=np.uint64))


def decode_jpeg(jpeg: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode a JPEG frame; raise ValueError if it does not have this shape."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=('JPEG', )) as image:
            if (image.height, image.width, len(image.getbands())) != shape:
                raise ValueError(f'{image.width} x {image.height} pixels, {image.mode}')
            return np.asarray(image)
    except Exception as e:  # Pillow's readers raise many types
        raise ValueError(f'no JPEG: {" ".join(str(e).split())}') from None
