"""Windows of long videos."""
import numpy as np
import pytest

from vop_mm.search import cut_windows


@pytest.mark.parametrize('duration, length, stride', [(25, 10, 5), (31.7, 10, 4), (100, 7, 7), (12.01, 10, 5)])
def test_windows_cover_the_video_and_overlap(duration, length, stride):
    windows = cut_windows(duration, length, stride)
    assert windows[0][0] == 0 and windows[-1][1] == pytest.approx(duration)
    for (start, end), (following, _) in zip(windows, windows[1:]):
        assert end - start == pytest.approx(length) or end == duration
        assert 0 < following - start <= stride + 1e-9
        assert following <= end
    assert len(windows) == len(set(windows))


def test_short_videos_are_one_window():
    assert cut_windows(9.5, 10) == cut_windows(9.5, None) == [(0, 9.5)]
    assert cut_windows(3.00000008, 3) == [(0, 3.00000008)]  # durations of files are rounded
    assert cut_windows(20, 10) == [(0, 10), (5, 15), (10, 20)]


def test_a_window_that_only_repeats_the_one_before_is_not_made():
    """Durations are rarely whole: 60.09 s are three windows of 30, and 30.03 s are one."""
    assert cut_windows(60.09, 30) == [(0, 30), (15, 45), (30, 60.09)]
    assert cut_windows(30.03, 30) == [(0, 30.03)]
    assert cut_windows(61.6, 30)[2:] == [(30, 60), (pytest.approx(31.6), 61.6)]
    for duration in np.arange(30, 120, 0.7):
        windows = cut_windows(duration, 30)
        assert all(after[1] - before[1] >= 1.5 for before, after in zip(windows, windows[1:]))


@pytest.mark.parametrize('length, stride', [(0, None), (-1, None), (10, 0), (10, 11), (float('inf'), None)])
def test_windows_that_leave_moments_out(length, stride):
    with pytest.raises(ValueError, match='window and stride must be positive'):
        cut_windows(100, length, stride)


@pytest.mark.parametrize('duration, length', [(1e6, 30), (1e308, 30), (100, 1e-3), (1, 1e-320)])
def test_there_is_a_limit_to_windows(duration, length):
    with pytest.raises(ValueError, match='more than 10000 windows'):
        cut_windows(duration, length)
    assert len(cut_windows(9, 2, 1, max_windows=8)) == 8
    with pytest.raises(ValueError, match='more than 7 windows'):
        cut_windows(9, 2, 1, max_windows=7)


@pytest.mark.parametrize('duration', [float('nan'), float('inf'), -1.])
def test_a_duration_that_is_none(duration):
    for length in (None, 10):
        with pytest.raises(ValueError, match='the duration is invalid'):
            cut_windows(duration, length)
