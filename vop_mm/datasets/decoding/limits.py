"""Limits on the size of decoded files. The defaults leave room for every video that a camera makes."""
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from math import isfinite

from ..errors import VideoDecodeError

_VARIABLE = 'VOP_MM_MAX_'


@dataclass(frozen=True)
class Limits:
    """Limits that apply everywhere: training, evaluation, indexing, checking and the search page.

    Each can be set by an environment variable such as ``VOP_MM_MAX_PIXELS``; see :meth:`current`.

    Args:
        pixels (int): Pixels per frame. Defaults to 35,651,584 (8192 x 4352), the maximum of the highest levels of H.264
            and HEVC.
        image_pixels (int): Pixels per image file. Defaults to 100,000,000.
        image_bytes (int): Bytes per image file. Defaults to 200,000,000.
        memory (int): Bytes of memory that a process may use for one call. The frames of a call may use a third of it.
            Defaults to 5,000,000,000.
        frames (int): Frames per video. Defaults to 8,388,608.
        hours (int): Hours per video. Defaults to 48.
        fetched (int): Total bytes of remote files that a process may hold at once. Defaults to 10,000,000,000.
    """
    pixels: int = 8192 * 4352
    image_pixels: int = 100_000_000
    image_bytes: int = 200_000_000
    memory: int = 5_000_000_000
    frames: int = 2**23
    hours: int = 48
    fetched: int = 10_000_000_000

    @classmethod
    def current(cls) -> 'Limits':
        """Return the defaults, overridden by environment variables.

        Raises:
            ValueError: A variable is not a positive integer.
        """
        found = {}
        for field in fields(cls):
            name = _name(field.name)
            text = os.environ.get(name)
            if text is not None:
                if not text.isdecimal() or not int(text):
                    raise ValueError(f'{name} must be a whole number above 0, not {text!r}')
                found[field.name] = int(text)
        return cls(**found)

    def check_frame(self, path: str, height: int, width: int) -> None:
        """Refuse frames that are too large.

        Raises:
            VideoDecodeError: The frames are too large.
        """
        if height * width > self.pixels:
            raise VideoDecodeError(path, f'frames of {width} x {height} pixels are too large: the limit is '
                                   f'{self.pixels:,} ({_name("pixels")})')

    def check_batch(self, path: str, count: int, height: int, width: int) -> None:
        """Refuse a batch of frames that needs too much memory.

        Raises:
            VideoDecodeError: The batch is too large.
        """
        size = 3 * count * height * width
        if size > self.memory // 3:
            raise VideoDecodeError(path, f'{count} frames of {width} x {height} pixels at once take {size / 1e9:.1f} '
                                   f'GB: the limit is {self.memory / 3e9:.1f} GB, a third of {_name("memory")}')

    def check_length(self, path: str, count: int, seconds: float = 0.) -> None:
        """Refuse a video that is too long, or claims to be.

        Raises:
            VideoDecodeError: The video is too long.
        """
        if count > self.frames:
            raise VideoDecodeError(path, f'{count:,} frames are too many: the limit is {self.frames:,} '
                                   f'({_name("frames")})')
        if not isfinite(seconds) or seconds > 3600 * self.hours:
            raise VideoDecodeError(path, f'{seconds / 3600:,.1f} hours are too long: the limit is {self.hours} '
                                   f'({_name("hours")})')

    def check_image(self, path: str, size: int, height: int, width: int) -> None:
        """Refuse an image that is too large, by file size or by number of pixels.

        Raises:
            VideoDecodeError: The image is too large.
        """
        if size > self.image_bytes:
            raise VideoDecodeError(path, f'an image file of {size:,} bytes is too large: the limit is '
                                   f'{self.image_bytes:,} ({_name("image_bytes")})')
        if height * width > self.image_pixels:
            raise VideoDecodeError(path, f'an image of {width} x {height} pixels is too large: the limit is '
                                   f'{self.image_pixels:,} ({_name("image_pixels")})')


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limit the memory growth of this process to ``VOP_MM_MAX_MEMORY`` within the context.

    Only pages written from now on count, so a process that was forked from a large one, or that has reserved addresses
    for a GPU, also starts at 0. There is no limit on systems that do not support one.
    """
    growth = Limits.current().memory
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(OSError, ValueError):
        with open('/proc/self/statm') as file:
            used = int(file.read().split()[5]) * resource.getpagesize()  # data and stack
        others = [limit for limit in before if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min([used + growth, *others]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def out_of_memory(path: str) -> VideoDecodeError:
    """Build the error for a video that exceeded :func:`limited_memory`."""
    return VideoDecodeError(path, f'decoding it takes more than {Limits.current().memory / 1e9:g} GB of memory: the '
                            f'limit is {_name("memory")}')


def _name(field: str) -> str:
    return _VARIABLE + field.upper()
