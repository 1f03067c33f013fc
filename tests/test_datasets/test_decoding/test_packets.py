"""In which order pictures are stored."""
import cv2
import numpy as np
import pytest

from tests.videos import encode_video
from vop_mm.datasets.decoding.packets import count_leading, packet_times


def test_leading_pictures_are_counted_as_by_hand():
    rng = np.random.default_rng(0)
    for _ in range(200):
        times, keys = rng.permutation(12), rng.random(12) < 0.3
        keys[0] = True
        before = [times[max(j for j in range(i + 1) if keys[j])] for i in range(12)]
        assert count_leading(times, keys) == sum(time < key for time, key in zip(times, before))
    assert count_leading(np.zeros(0), np.zeros(0, bool)) == 0


def test_of_something_else_there_are_no_packets(tmp_path):
    (tmp_path / 'a.mkv').write_bytes(bytes.fromhex('1a45dfa3') + b'rubbish' * 100)
    times, keys = packet_times(str(tmp_path / 'a.mkv'))
    assert times.shape == keys.shape == (0, )


def test_an_old_opencv_says_so(tmp_path, monkeypatch):
    monkeypatch.delattr(cv2, 'CAP_PROP_PTS')
    with pytest.raises(ImportError, match='4.11 or newer'):
        packet_times(encode_video(tmp_path / 'a.mkv', 3))
