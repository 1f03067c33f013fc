"""Confidence intervals."""
import numpy as np
import pytest

from vop_mm.evaluation.functional import bootstrap_intervals, evaluate_retrieval, rank_metrics


def test_as_drawn_one_by_one():
    """Against the plain way: draw, copy, compute."""
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 30, 60).astype(float)
    plain = [rank_metrics(ranks[rng.integers(0, 60, 60)]) for _ in range(4000)]
    for key, (low, high) in bootstrap_intervals(ranks, samples=4000).items():
        values = [metrics[key] for metrics in plain]
        # recalls of 60 queries and medians go in steps
        error = 0.1 * np.std(values) + dict(MdR=0.5, MnR=0., Rsum=100 / 60).get(key, 100 / 60)
        assert low == pytest.approx(np.percentile(values, 2.5), abs=error), key
        assert high == pytest.approx(np.percentile(values, 97.5), abs=error), key
        assert low <= rank_metrics(ranks)[key] <= high


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), 0
    for i in range(200):
        ranks = np.where(rng.random(300) < 0.4, 1, 20)
        low, high = bootstrap_intervals(ranks, samples=300, seed=i)['R1']
        hits += low <= 40 <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_captions_of_a_video_are_drawn_together():
    """Ten captions of a video that are right or wrong together are no ten observations."""
    right = np.random.default_rng(2).random(50) < 0.5
    groups = np.repeat(np.arange(50), 10)
    ranks = np.where(right, 1, 9)[groups]
    apart, together = (bootstrap_intervals(ranks, g)['R1'] for g in (None, groups))
    assert np.ptp(together) == pytest.approx(np.sqrt(10) * np.ptp(apart), rel=0.15)
    assert np.ptp(together) == pytest.approx(2 * 1.96 * 100 * np.sqrt(0.25 / 50), rel=0.15)


def test_the_seed_decides():
    ranks = np.arange(1, 40)
    one, again, other = (bootstrap_intervals(ranks, seed=seed) for seed in (1, 1, 2))
    assert one == again != other


def test_with_an_evaluation():
    similarity = np.random.default_rng(0).standard_normal((40, 10)).astype(np.float32)
    rows = dict(evaluate_retrieval(similarity, np.arange(40) % 10, bootstrap=100))
    assert all(v['MnR_low'] < v['MnR'] < v['MnR_high'] and v['R50_low'] == 100 for v in rows.values())


@pytest.mark.parametrize('arguments, says', [
    (([], ), 'at least one'),
    (([1, 2], [0]), r'got \(2,\) and \(1,\)'),
    (([1, 2], None, 0), 'samples must be at least 1'),
])
def test_bad_input(arguments, says):
    with pytest.raises(ValueError, match=says):
        bootstrap_intervals(*arguments)
