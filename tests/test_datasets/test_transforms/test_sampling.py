"""Which frames of a clip are taken: by number as published, by time as they are shown."""
import json
from pathlib import Path

import numpy as np
import pytest

from vop_mm.datasets.transforms import clip_moments, clip_range, sample_frames, sample_moments

CASES = json.loads((Path(__file__).parents[2] / 'data' / 'uniform_sampling.json').read_text())


@pytest.mark.parametrize('case', CASES, ids=lambda c: f'{c["num_frames"]}of{c["total_frames"]}')
def test_middle_frames_equal_the_published_sampling(case):
    assert sample_frames(case['total_frames'], case['num_frames']).tolist() == case['indices']


@pytest.mark.parametrize('total, num', [(1, 12), (11, 12), (12, 12), (13, 12), (100, 12), (301, 12), (7, 1)])
def test_random_frames_lie_in_their_segments_and_reach_all_of_them(total, num):
    edges = [int(total * i / min(num, total) + 1e-9) for i in range(min(num, total) + 1)]
    rng = np.random.default_rng(0)
    draws = np.stack([sample_frames(total, num, rng.random(num)) for _ in range(1000)])
    for i, column in enumerate(draws.T):
        assert set(column) <= set(range(edges[i], edges[i + 1]))
    assert set(draws.ravel()) == set(range(total))


@pytest.mark.parametrize('total, num', [(0, 12), (3, 0)])
def test_nothing_to_choose_from(total, num):
    with pytest.raises(ValueError, match='at least 1'):
        sample_frames(total, num)


@pytest.mark.parametrize('fps', [1, 10, 23.976, 24, 25, 29.97, 30, 59.94, 60, 120])
@pytest.mark.parametrize('digits', [6, 3])
def test_both_agree_where_the_rate_is_constant(fps, digits):
    """To the frame: whole videos and windows, middle and random, with times that a container rounds."""
    rng = np.random.default_rng(int(fps))
    for total in (1, 2, 11, 12, 13, 100, 1001):
        times = np.round(np.arange(total) / fps, digits)
        stop = total / fps
        clips = [(None, None), (0, stop), (0.1 * stop, 0.7 * stop), (0.31 * stop, None), (None, 0.5 * stop),
                 (0.5 * stop, 9e9), *(sorted(rng.uniform(0, stop, 2)) for _ in range(10))]
        for start, end in clips:
            for num in (1, 7, 12):
                for draws in (None, rng.random(num)):
                    first, behind = clip_range(times, stop, start, end)
                    by_number = first + sample_frames(behind - first, num, draws)
                    first, shown, gone = clip_moments(times, stop, start, end)
                    by_time = first + sample_moments(shown, gone, num, draws)
                    assert by_time.tolist() == by_number.tolist(), (total, start, end, num)


SLIDES = np.concatenate([[0.], 44 + np.arange(480) / 30])  # a slide that stands for 44 s, then a video to 60 s


@pytest.mark.parametrize('start, end, slide, whole', [
    (None, None, range(8, 10), 60), (0, 30, [12], 30), (15, 45, range(11, 13), 30), (43, 45, range(5, 7), 2),
    (50, None, [0], 10), (43.9, 59, [0, 1], 15.1)])
def test_what_stands_is_taken_for_as_long_as_it_stands(start, end, slide, whole):
    first, shown, gone = clip_moments(SLIDES, 60., start, end)
    chosen = first + sample_moments(shown, gone, 12)
    if len(shown) == 1:
        assert chosen.tolist() == [0]
        return
    assert (chosen == 0).sum() in slide and (np.diff(chosen) >= 0).all()
    assert gone - shown[0] == pytest.approx(whole, abs=0.04)


@pytest.mark.parametrize('seconds', [(29, .5, .5), (40, 12, 5, 3), (2, 1), (1, 3), (.04, .04, .04, 5)])
def test_few_slides_are_taken_for_as_long_as_they_stand(seconds):
    shown = np.cumsum([0, *seconds])
    chosen = sample_moments(shown[:-1], shown[-1], 12)
    counts = np.bincount(chosen, minlength=len(seconds))
    np.testing.assert_allclose(counts, 12 * np.array(seconds) / sum(seconds), atol=1)
    assert counts.sum() == 12 and (np.diff(chosen) >= 0).all()


def test_sampling_by_time_is_even_in_time():
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = np.concatenate([[0.], np.cumsum(rng.choice([0.02, 0.04, 0.5, 3.], 120))])
        stop = times[-1] + 0.04
        found = sample_moments(times, stop, 11)
        # a segment's middle is that of a part of the time, so it may lie half a part beside the exact one
        part = stop / len(times)
        shown = np.append(times, stop)
        middles = (np.arange(11) + 0.5) * stop / 11
        for i, middle in zip(found, middles, strict=True):
            assert shown[i] - part <= middle <= shown[i + 1] + part


def test_clip_range_never_is_empty():
    times = np.arange(10) / 10
    assert clip_range(times, 1., 0.31, 0.35) == (3, 4)  # between two frames: the one on screen
    assert clip_range(times, 1., 0.95, 0.99) == (9, 10)
    assert clip_range(times, 1., 0, 1e-5) == (0, 1)
    assert clip_range(np.zeros(1), 0.04, None, 5) == (0, 1)
    assert clip_range(times, 1., None, None) == (0, 10)
    with pytest.raises(ValueError, match='the clip starts at 3 s, the video ends at 1 s'):
        clip_range(times, 1., 3, 4)
