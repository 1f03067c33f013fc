"""Frame sampling, by frame number or by presentation time."""
from collections.abc import Sequence

import numpy as np

_HALF_MS = 5e-4  # times in files are rounded, in some containers to milliseconds
_STANDS = 1.5  # a frame shown longer than this multiple of the usual duration is a still


def sample_frames(total: int, num: int, draws: np.ndarray | None = None) -> np.ndarray:
    """Sample one frame from each of ``num`` equal segments (``uniform`` sampling in X-Pool and VoP).

    Args:
        total (int): Number of available frames, at least 1.
        num (int): Number of frames to sample, at least 1.
        draws (np.ndarray, optional): Relative position of each frame in its segment, in [0, 1), [num]. None: middle.

    Returns:
        np.ndarray: int64 [min(num, total)], ascending; every frame once if there are no more than ``num``.

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
    """Sample the frames on screen at evenly spaced moments; a long still may be taken more than once.

    The clip's time is divided into as many parts as it has frames, and parts are chosen as :func:`sample_frames`
    chooses frames. At a constant frame rate each part is a frame, and both functions choose the same ones. Fewer than
    ``num`` frames of varying duration are treated as ``num`` frames.

    Args:
        times (Sequence[float]): Start of each frame in seconds, ascending, [n].
        stop (float): End of the last frame in seconds.
        num (int): Number of frames to sample, at least 1.
        draws (np.ndarray, optional): See :func:`sample_frames`.

    Returns:
        np.ndarray: int64 [num], ascending; at a constant rate, [min(num, n)].
    """
    shown = np.diff([*times, float(stop)])
    count = len(times) if shown.max(initial=0) <= _STANDS * shown.min(initial=np.inf) else max(len(times), num)
    moments = times[0] + (sample_frames(count, num, draws) + 0.5) * (stop - times[0]) / count
    return np.searchsorted(times, moments, side='right') - 1


def clip_range(times: np.ndarray, stop: float, start: float | None, end: float | None) -> tuple[int, int]:
    """Return the range of frames that belong to a clip of a video.

    These are the frames that begin in [start, end); if none does, the one on screen at ``start``.

    Args:
        times (np.ndarray): Start of each frame in seconds, ascending, float64 [n].
        stop (float): End of the last frame in seconds.
        start (float, optional): Start of the clip in seconds. None: start of the video.
        end (float, optional): End of the clip in seconds; may exceed the end of the video. None: end of the video.

    Returns:
        tuple[int, int]: First frame, and the one after the last.

    Raises:
        ValueError: The clip starts after the last frame.

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
    """Return the frames on screen during a clip: those of :func:`clip_range`, and a still on screen at ``start``.

    A frame that began before ``start`` belongs to the clip if it stays on screen for longer than the clip's frames
    usually do; at a constant frame rate none does, and the frames are those of :func:`clip_range`.

    Args:
        times (np.ndarray): Start of each frame in seconds, ascending, float64 [n].
        stop (float): End of the last frame in seconds.
        start (float, optional): Start of the clip in seconds. None: start of the video.
        end (float, optional): End of the clip in seconds. None: end of the video.

    Returns:
        tuple[int, np.ndarray, float]: First frame; start of each frame in the clip in seconds, float64 [n]; and end of
        the last one in seconds.

    Raises:
        ValueError: The clip starts after the last frame.
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
