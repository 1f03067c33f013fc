"""How much may come out of a file. The defaults leave room for every video that a camera makes."""
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
    """Limits of every use: training, evaluation, indexing, checking, the page.

    Each may be set by an environment variable: ``VOP_MM_MAX_PIXELS`` and so on; see :meth:`current`.

    Args:
        pixels (int): Of a frame. Defaults to 35,651,584 (8192 x 4352), the most that the highest levels of H.264 and
            HEVC allow.
        image_pixels (int): Of an image file. Defaults to 100,000,000.
        image_bytes (int): Of an image file. Defaults to 200,000,000.
        memory (int): Bytes that a process may take for one call. The frames of a call may take a third of it. Defaults
            to 5,000,000,000.
        frames (int): Of a video. Defaults to 8,388,608.
        hours (int): Of a video. Defaults to 48.
        fetched (int): Bytes that the files which a process fetched from elsewhere take at once. Defaults to
            10,000,000,000.
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
        """The defaults, and what the environment says.

        Raises:
            ValueError: A variable is no whole number above 0.
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
            VideoDecodeError: They are.
        """
        if height * width > self.pixels:
            raise VideoDecodeError(path, f'frames of {width} x {height} pixels are too large: the limit is '
                                   f'{self.pixels:,} ({_name("pixels")})')

    def check_batch(self, path: str, count: int, height: int, width: int) -> None:
        """Refuse more frames at once than memory is meant for.

        Raises:
            VideoDecodeError: They are too many.
        """
        size = 3 * count * height * width
        if size > self.memory // 3:
            raise VideoDecodeError(path, f'{count} frames of {width} x {height} pixels at once take {size / 1e9:.1f} '
                                   f'GB: the limit is {self.memory / 3e9:.1f} GB, a third of {_name("memory")}')

    def check_length(self, path: str, count: int, seconds: float = 0.) -> None:
        """Refuse a video that is too long, or says so.

        Raises:
            VideoDecodeError: It is.
        """
        if count > self.frames:
            raise VideoDecodeError(path, f'{count:,} frames are too many: the limit is {self.frames:,} '
                                   f'({_name("frames")})')
        if not isfinite(seconds) or seconds > 3600 * self.hours:
            raise VideoDecodeError(path, f'{seconds / 3600:,.1f} hours are too long: the limit is {self.hours} '
                                   f'({_name("hours")})')

    def check_image(self, path: str, size: int, height: int, width: int) -> None:
        """Refuse an image that is too large, by its file's bytes or by its pixels.

        Raises:
            VideoDecodeError: It is.
        """
        if size > self.image_bytes:
            raise VideoDecodeError(path, f'an image file of {size:,} bytes is too large: the limit is '
                                   f'{self.image_bytes:,} ({_name("image_bytes")})')
        if height * width > self.image_pixels:
            raise VideoDecodeError(path, f'an image of {width} x {height} pixels is too large: the limit is '
                                   f'{self.image_pixels:,} ({_name("image_pixels")})')


@contextmanager
def limited_memory() -> Iterator[None]:
    """Within it this process can't grow by more than ``VOP_MM_MAX_MEMORY``; a library then gets no more memory.

    What counts is what a process writes to, from now on: a process that was forked from a large one, or one that has
    reserved addresses for a GPU, begins at 0 too. Where the system doesn't know such a limit, there is none.
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
    """The error where :func:`limited_memory` had no more."""
    return VideoDecodeError(path, f'it takes more than {Limits.current().memory / 1e9:g} GB of memory to decode: the '
                            f'limit is {_name("memory")}')


def _name(field: str) -> str:
    return _VARIABLE + field.upper()
