"""Presentation times of a video's frames, read from its packets without decoding."""
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

UNKNOWN = -2**63  # FFmpeg's value for a time that a file does not give
_HALF_MS = 5e-4  # times are rounded, in some containers to milliseconds


@dataclass(frozen=True)
class FrameIndex:
    """Frames of a video, or of a time window of it, in presentation order.

    Args:
        times (np.ndarray): Start of each frame in ticks, int64 [n], ascending.
        end (int): End of the last frame in ticks.
        first (int): Start of the file's first frame in ticks.
        tick (Fraction): Length of a tick in seconds.
        keys (np.ndarray): Times to seek to (those of key frames), int64 [k], ascending.
        offset (int): Number of the index's first frame in the file. Only known if all frames before it were indexed.
        counted (bool): The times do not identify frames, only their numbers do. Defaults to False.
        leading (int): Number of frames that are stored after a key frame and shown before it. Defaults to 0.
        doubtful (bool): Some frames are shown before the first key frame, so a decoder may drop them.
    """
    times: np.ndarray
    end: int
    first: int
    tick: Fraction
    keys: np.ndarray
    offset: int = 0
    counted: bool = False
    leading: int = 0
    doubtful: bool = False

    @classmethod
    def from_packets(cls, packets: np.ndarray, tick: Fraction, rate: float) -> 'FrameIndex | None':
        """Build an index from packets.

        Args:
            packets (np.ndarray): Presentation time, decoding time, duration and key frame flag of each packet in file
                order, int64 [n, 4]; times in ticks or ``UNKNOWN``.
            tick (Fraction): Length of a tick in seconds.
            rate (float): Frames per second according to the container; 0 if unknown.

        Returns:
            FrameIndex | None: None if the times do not identify the frames.
        """
        times, decoded, durations, is_key = packets.T
        known = decoded[decoded != UNKNOWN]
        if not len(times) or (times == UNKNOWN).any() or (np.diff(known) < 0).any():
            return None
        order = np.argsort(times, kind='stable')
        ascending = times[order]
        if (np.diff(ascending) == 0).any():
            return None
        if (np.maximum.accumulate(times) > times)[is_key > 0].any():  # joined from overlapping parts
            return None
        last_key = np.maximum.accumulate(np.where(is_key > 0, np.arange(len(times)), -1))  # [n]
        leading = (last_key >= 0) & (times < times[last_key])
        end = ascending[-1] + _last_duration(ascending, int(durations[order[-1]]), tick, rate)
        return cls(ascending, int(end), int(ascending[0]), tick, np.sort(times[is_key > 0]),
                   leading=int(leading.sum()), doubtful=bool((leading & (last_key == 0)).any()))

    @classmethod
    def from_count(cls, times: list[int | None], tick: Fraction, rate: float) -> 'FrameIndex':
        """Build an index from the times of all decoded frames in decoding order, which may be None or wrong."""
        if None in times or (len(set(times)) < len(times) and not _nearly_ascending(times)):
            tick = 1 / Fraction(rate or 25).limit_denominator(100_000)
            times = range(len(times))
        ascending = np.asarray(times, dtype=np.int64)
        if _nearly_ascending(times):  # joined from overlapping parts: a frame that comes too early follows immediately
            number = np.arange(len(times))
            ascending = np.maximum.accumulate(ascending - number) + number
        else:
            ascending = np.sort(ascending)
        end = int(ascending[-1]) + _last_duration(ascending, 0, tick, rate)
        return cls(ascending, end, int(ascending[0]), tick, ascending[:0], counted=True)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def seconds(self) -> np.ndarray:
        """Start of each frame, in seconds from the first frame of the file, float64 [n]."""
        return (self.times - self.first).astype(np.float64) * self.tick.numerator / self.tick.denominator

    @property
    def duration(self) -> float:
        """End of the last frame, in seconds from the first frame of the file."""
        return float((self.end - self.first) * self.tick)

    @property
    def fps(self) -> float:
        """Average number of frames per second."""
        seconds = float((self.end - int(self.times[0])) * self.tick)
        return len(self) / seconds if seconds > 0 else 0.

    def ticks(self, seconds: float) -> int:
        """Convert seconds from the first frame of the file to ticks."""
        return self.first + round(Fraction(seconds) / self.tick)

    def key_before(self, time: int) -> int:
        """Return the number of the last key frame at or before a time in ticks; -1 if there is none."""
        return int(np.searchsorted(self.keys, time, side='right')) - 1

    def begin_at(self, time: int) -> 'FrameIndex':
        """Return the index without the frames before a time, which becomes the time of the file's first frame."""
        times = self.times[self.times >= time]
        return replace(self, times=times, first=int(times[0]), doubtful=False) if len(times) else self

    def window(self, start: float | None, end: float | None) -> 'FrameIndex':
        """Return the frames that begin in [start, end), and the one on screen at ``start`` if none begins there.

        Args:
            start (float, optional): Seconds from the first frame of the file. None: 0.
            end (float, optional): Seconds from the first frame of the file. None: the end of the video.

        Raises:
            ValueError: The window begins after the end of the video.
        """
        start = start or 0.
        if not start <= max(self.duration, _HALF_MS):  # also refuses NaN
            raise ValueError(f'the clip starts at {start:g} s, the video ends at {round(self.duration, 2):g} s')
        seconds = self.seconds
        first = int(np.searchsorted(seconds, start - _HALF_MS))
        if first == len(seconds) or seconds[first] > start + _HALF_MS:
            first = max(first - 1, 0)
        stop = len(seconds) if end is None else int(np.searchsorted(seconds, end - _HALF_MS))
        stop = max(stop, first + 1)
        last = int(self.times[stop]) if stop < len(seconds) else self.end
        return replace(self, times=self.times[first:stop], end=last, offset=self.offset + first)


def _nearly_ascending(times: Sequence[int]) -> bool:
    return (np.diff(np.asarray(times, dtype=np.int64)) <= 0).mean() <= .02 if len(times) > 1 else True


def _last_duration(times: np.ndarray, said: int, tick: Fraction, rate: float) -> int:
    """Return the duration of the last frame in ticks: as stored in the file, or else the average of the others."""
    if said > 0:
        return said
    if len(times) > 1:
        return round((int(times[-1]) - int(times[0])) / (len(times) - 1))
    return round(1 / (rate * tick)) if rate > 0 else 0
