"""Choosing frames of a clip, by their number or by when they are shown."""
from collections.abc import Sequence

import numpy as np

_HALF_MS = 5e-4  # times in files are rounded, to milliseconds in some containers
_STANDS = 1.5  # times as long as a usual frame: one that is shown longer than that stands


def sample_frames(total: int, num: int, draws: np.ndarray | None = None) -> np.ndarray:
    """One frame of each of ``num`` equal segments: X-Pool's ``uniform`` sampling, and VoP's.

    Args:
        total (int): Frames there are, at least 1.
        num (int): Frames wanted, at least 1.
        draws (np.ndarray, optional): Which frame of its segment each is, in [0, 1), [num]. None: the middle one.

    Returns:
        np.ndarray: int64 [min(num, total)], ascending; all frames, each once, where there are no more than ``num``.

    Examples:
        >>> sample_frames(25, 12)
        array([ 0,  2,  4,  6,  8, 10, 12, 14, 16, 18, 20, 23])
    """
    if total < 1 or num < 1:
        raise ValueError(f'total and num must be at least 1, got {total} and {num}')
    bounds = np.linspace(0, total, min(num, total) + 1).astype(np.int64)  # segment i is [bounds[i], bounds[i + 1])
    if draws is None:
        return (bounds[:-1] + bounds[1:] - 1) // 2
    return bounds[:-1] + (draws[:len(bounds) - 1] * np.diff(bounds)).astype(np.int64)


def sample_moments(times: Sequence[float], stop: float, num: int, draws: np.ndarray | None = None) -> np.ndarray:
    """The frames that are on screen at moments spread evenly: one that stands long is taken more than once.

    The clip's time is cut into as many parts as it has frames, and parts are chosen as :func:`sample_frames` chooses
    frames. At a constant rate each part is a frame, and both choose the same ones. A few frames that are shown for
    different times are taken as if there were ``num`` of them.

    Args:
        times (Sequence[float]): Seconds at which each frame appears, ascending, [n].
        stop (float): Seconds at which the last one disappears.
        num (int): Frames wanted, at least 1.
        draws (np.ndarray, optional): As of :func:`sample_frames`.

    Returns:
        np.ndarray: int64 [num], ascending; at a constant rate, [min(num, n)].
    """
    shown = np.diff([*times, float(stop)])
    count = len(times) if shown.max(initial=0) <= _STANDS * shown.min(initial=np.inf) else max(len(times), num)
    moments = times[0] + (sample_frames(count, num, draws) + 0.5) * (stop - times[0]) / count
    return np.searchsorted(times, moments, side='right') - 1


def clip_range(times: np.ndarray, stop: float, start: float | None, end: float | None) -> tuple[int, int]:
    """The frames that belong to a clip of a video.

    Those that appear in [start, end); where none does, the one that is on screen at ``start``.

    Args:
        times (np.ndarray): Seconds at which each frame appears, ascending, float64 [n].
        stop (float): Seconds at which the last one disappears.
        start (float, optional): Seconds. None: the video's start.
        end (float, optional): Seconds; may lie behind the video's end. None: the video's end.

    Returns:
        tuple[int, int]: First frame, and the one behind the last.

    Raises:
        ValueError: The clip starts behind the last frame.

    Examples:
        >>> clip_range(np.arange(100) / 25, 4., 1, 2)
        (25, 50)
    """
    start = start or 0.
    if start > max(stop, _HALF_MS):
        raise ValueError(f'the clip starts at {start:g} s, the video ends at {stop:.3g} s')
    first = int(np.searchsorted(times, start - _HALF_MS))
    behind = len(times) if end is None else int(np.searchsorted(times, end - _HALF_MS))
    return (first, behind) if first < behind else (max(first - 1, 0), max(first, 1))


def clip_moments(times: np.ndarray, stop: float, start: float | None,
                 end: float | None) -> tuple[int, np.ndarray, float]:
    """What is on screen during a clip of a video: as :func:`clip_range`, and a frame that stands at ``start``.

    A frame that was on screen before ``start`` belongs to the clip if it stays there for longer than frames of the
    clip usually do; at a constant rate none does, and the frames are those of :func:`clip_range`.

    Args:
        times (np.ndarray): As of :func:`clip_range`, and so on.
        stop (float): Seconds.
        start (float, optional): Seconds.
        end (float, optional): Seconds.

    Returns:
        tuple[int, np.ndarray, float]: The first frame; seconds at which each appears in the clip, float64 [n]; and at
        which the last one disappears from it.

    Raises:
        ValueError: The clip starts behind the last frame.
    """
    first, behind = clip_range(times, stop, start, end)
    start, gone = start or 0., float(times[behind]) if behind < len(times) else stop
    usual = _STANDS * float(np.median(np.diff([*times[first:behind], gone])))
    if first > 0 and times[first] - start > usual:
        first -= 1
    shown = times[first:behind]
    if shown[0] < start - _HALF_MS:
        shown = np.maximum(shown, start)
    return first, shown, end if end is not None and gone - end > usual else gone
