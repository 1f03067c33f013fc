"""Windows of long videos."""
import pytest

from vop_mm.index import cut_windows


@pytest.mark.parametrize('duration, length, stride', [(25, 10, 5), (31.7, 10, 4), (100, 7, 7), (10.01, 10, 5)])
def test_windows_cover_the_video_and_overlap(duration, length, stride):
    windows = cut_windows(duration, length, stride)
    assert windows[0][0] == 0 and windows[-1][1] == pytest.approx(duration)
    for (start, end), (following, _) in zip(windows, windows[1:]):
        assert end - start == pytest.approx(length)
        assert 0 < following - start <= stride + 1e-9
        assert following <= end
    assert len(windows) == len(set(windows))


def test_short_videos_are_one_window():
    assert cut_windows(9.5, 10) == cut_windows(9.5, None) == [(0, 9.5)]
    assert cut_windows(3.00000008, 3) == [(0, 3.00000008)]  # durations of files are rounded
    assert cut_windows(20, 10) == [(0, 10), (5, 15), (10, 20)]


@pytest.mark.parametrize('length, stride', [(0, None), (-1, None), (10, 0), (10, 11), (float('inf'), None)])
def test_windows_that_leave_moments_out(length, stride):
    with pytest.raises(ValueError, match='windows take a length'):
        cut_windows(100, length, stride)
