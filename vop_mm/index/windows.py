"""Long videos as windows."""
import math

_ROUNDING = 1e-3  # seconds: durations come from rounded times


def cut_windows(duration: float, length: float | None, stride: float | None = None) -> list[tuple[float, float]]:
    """Cut a video into windows of equal length that overlap; the last one ends with the video.

    Args:
        duration (float): Of the video, in seconds.
        length (float, optional): Of a window, in seconds. None: the whole video is one.
        stride (float, optional): From one window's start to the next one's, in seconds. None: half of ``length``.

    Returns:
        list[tuple[float, float]]: Start and end of each. A video no longer than ``length`` is one window.

    Raises:
        ValueError: ``length`` isn't positive, or ``stride`` isn't in (0, length]: moments would be left out.

    Examples:
        >>> cut_windows(25, 10, 5)
        [(0.0, 10.0), (5.0, 15.0), (10.0, 20.0), (15.0, 25.0)]
    """
    if length is None:
        return [(0., float(duration))]
    stride = length / 2 if stride is None else stride
    if not (0 < length < math.inf and 0 < stride <= length):
        raise ValueError(f'windows take a length above 0 and a stride above 0 that is no longer, got {length:g} and '
                         f'{stride:g} seconds')
    if duration <= length + _ROUNDING:
        return [(0., float(duration))]
    count = math.ceil((duration - length - _ROUNDING) / stride)
    starts = [i * stride for i in range(count)] + [duration - length]
    return [(float(start), float(start + length)) for start in starts]
