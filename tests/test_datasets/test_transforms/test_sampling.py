import json
from pathlib import Path

import numpy as np
import pytest

from vop_mm.datasets.transforms import SampleSegments, random_indices, uniform_indices

CASES = json.loads((Path(__file__).parents[2] / 'data' / 'uniform_sampling.json').read_text())


@pytest.mark.parametrize('case', CASES, ids=lambda c: f'{c["num_frames"]}of{c["total_frames"]}')
def test_middle_frames_equal_the_published_sampling(case):
    assert uniform_indices(case['total_frames'], case['num_frames']).tolist() == case['indices']


@pytest.mark.parametrize('total, num', [(1, 12), (11, 12), (12, 12), (13, 12), (100, 12), (301, 12), (7, 1)])
def test_random_frames_lie_in_their_segments_and_reach_all_of_them(total, num):
    edges = [int(total * i / min(num, total) + 1e-9) for i in range(min(num, total) + 1)]
    np.random.seed(0)
    draws = np.stack([random_indices(total, num) for _ in range(1000)])
    for i, column in enumerate(draws.T):
        assert set(column) <= set(range(edges[i], edges[i + 1]))
    assert set(draws.ravel()) == set(range(total))


def test_a_clip_is_sampled_within_its_bounds():
    results = SampleSegments(num_frames=12)(dict(total_frames=500, clip_start=100, clip_end=125))
    assert results['frame_inds'].tolist() == [100 + i for i in (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 23)]
    assert results['num_frames'] == 12


@pytest.mark.parametrize('mode', ['middle', 'random'])
def test_short_videos_repeat_the_last_frame_or_stay_short(mode):
    results = SampleSegments(num_frames=6, mode=mode)(dict(total_frames=4))
    assert results['frame_inds'].tolist() == [0, 1, 2, 3, 3, 3] and results['num_frames'] == 4
    results = SampleSegments(num_frames=6, mode=mode, pad=None)(dict(total_frames=4))
    assert results['frame_inds'].tolist() == [0, 1, 2, 3] and results['num_frames'] == 4


@pytest.mark.parametrize('args', [dict(mode='last'), dict(pad='black'), dict(num_frames=0)])
def test_wrong_arguments(args):
    with pytest.raises(ValueError):
        SampleSegments(**args)
