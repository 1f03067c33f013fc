"""Cut long videos into windows."""
import math

MAX_WINDOWS = 10_000  # per file: a few bytes may claim that a video lasts for days
_MIN_NEW = 0.1  # of a stride: a last window that would add less is not made, and the previous one is extended instead


def cut_windows(duration: float, length: float | None, stride: float | None = None,
                max_windows: int = MAX_WINDOWS) -> list[tuple[float, float]]:
    """Cut a video into overlapping windows of equal length; the last one ends with the video.

    Args:
        duration (float): Duration of the video in seconds.
        length (float, optional): Length of a window in seconds. None: one window for the whole video.
        stride (float, optional): Seconds between the starts of windows. None: half of ``length``.
        max_windows (int): Maximum number of windows. Defaults to 10000: 41 hours of 30-second windows.

    Raises:
        ValueError: ``length`` is not positive, ``stride`` is not in (0, length] (moments would be skipped), there are
            too many windows, or the duration is invalid.

    Examples:
        >>> cut_windows(25, 10, 5)
        [(0.0, 10.0), (5.0, 15.0), (10.0, 20.0), (15.0, 25.0)]
    """
    if not 0 <= duration < math.inf:
        raise ValueError(f'the duration is invalid: {duration:g} seconds')
    if length is None:
        return [(0., float(duration))]
    stride = length / 2 if stride is None else stride
    if not (0 < length < math.inf and 0 < stride <= length):
        raise ValueError(f'window and stride must be positive, and the stride at most the window, got {length:g} '
                         f'and {stride:g} seconds')
    rest = duration - length - _MIN_NEW * stride
    if rest <= 0:
        return [(0., float(duration))]
    count = rest / stride
    if count > max_windows - 1:
        raise ValueError(f'{duration:.0f} seconds are more than {max_windows} windows (--max-windows)')
    count = math.ceil(count)  # windows that don't start where the last one does
    windows = [(float(i * stride), float(i * stride + length)) for i in range(count)]
    start = min(duration - length, count * stride)
    return [*windows, (float(start), float(duration))]
