"""How often a clip is told from its twin, by hand and as a metric of an evaluation."""
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from demo.shapes.pair_accuracy import pair_accuracy
from tests.ranks import on_ranks
from tests.samples import by_hand, change, make_samples
from tests.samples import evaluate as evaluate_by


def evaluate(samples, batch=5):
    return evaluate_by(samples, batch, metric=dict(type='vop_mm.PairAccuracy'))


def test_by_hand():
    similarity = torch.tensor([[.9, .1, .95], [.2, .8, 0], [.3, .3, 0], [.9, .1, 0], [0, 0, 1]])
    text_to_video = [0, 1, 1, 1, 2]
    # text 0 is right; of video 1's, one is right, one is equal, one is wrong; video 2 has no twin
    assert pair_accuracy(similarity, text_to_video, [1, 0, -1]) == 62.5
    assert pair_accuracy(similarity, text_to_video, [-1, 0, -1]) == 50
    assert pair_accuracy(torch.eye(4), range(4), [1, 0, 3, 2]) == 100
    assert pair_accuracy(torch.ones(4, 4), range(4), [1, 0, 3, 2]) == 50


@pytest.mark.parametrize(('twins', 'says'), [
    ([1, 0, 2], 'video 2 is its own twin'),
    ([-1, -1, -1], 'no video has a twin'),
])
def test_bad_twins(twins, says):
    with pytest.raises(ValueError, match=says):
        pair_accuracy(torch.eye(3), range(3), twins)


def test_twins_count_where_both_are_in_the_gallery():
    samples = make_samples(twins=True)
    similarity, text_to_video = by_hand(samples)
    twins = np.array([1, 0] * 11 + [2]) + np.repeat(np.arange(12) * 2, 2)[:23]
    twins[-1] = -1
    assert evaluate(samples)['pair_accuracy'] == pair_accuracy(similarity, text_to_video, twins)
    # without video 0, its twin counts no more
    twins[1] = -1
    expected = pair_accuracy(similarity[len(samples[0].text_features):, 1:],
                             text_to_video[len(samples[0].text_features):] - 1, np.where(twins > 0, twins - 1, -1)[1:])
    assert evaluate([change(samples[0], unreadable=[('a.mp4', 'garbage')]), *samples[1:]])['pair_accuracy'] == expected


def test_pair_accuracy_of_each_kind_is_that_of_its_videos():
    samples = make_samples(twins=True)
    kinds = ['move'] * 8 + ['turn'] * 14 + ['alone']
    for sample, kind in zip(samples, kinds, strict=True):
        sample.set_metainfo(dict(kind=kind))
    found = evaluate(samples)
    assert {key for key in found if key.startswith('pair')} == {f'pair_accuracy{k}' for k in ('', '/move', '/turn')}
    for kind, part in (('move', samples[:8]), ('turn', samples[8:22])):
        alone = evaluate([change(sample, kind=None) for sample in part])
        assert found[f'pair_accuracy/{kind}'] == alone['pair_accuracy'] and f'pair_accuracy/{kind}' not in alone


def test_order_and_batch_size_do_not_matter():
    samples = make_samples(twins=True, levels=2)
    expected = evaluate(samples)
    for seed, batch in enumerate((1, 4, 23)):
        assert evaluate([samples[i] for i in np.random.default_rng(seed).permutation(len(samples))], batch) == expected


def test_processes_do_not_matter():
    samples = make_samples(twins=True, levels=3)

    def on_rank():
        evaluator = Evaluator(dict(type='vop_mm.PairAccuracy'))
        evaluator.process(samples[torch.distributed.get_rank()::2])
        return evaluator.evaluate(len(samples))

    alone = evaluate(samples)
    assert alone['pair_accuracy'] > 0 and on_ranks(on_rank, 2) == [alone, alone]


def test_without_twins_there_is_nothing_to_say():
    assert evaluate(make_samples()) == {}
    twins = make_samples(twins=True)
    assert set(evaluate(twins)) == {'pair_accuracy'}
    both = [dict(type='vop_mm.RetrievalMetric'), dict(type='vop_mm.PairAccuracy')]
    assert list(evaluate_by(twins, metric=both))[-1] == 'pair_accuracy'
