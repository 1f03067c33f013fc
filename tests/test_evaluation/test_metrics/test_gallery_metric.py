"""Metrics of a gallery: matched by id, whatever the order, the batches and the processes; and what they refuse."""
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.runner import TestLoop as Loop  # under its own name pytest takes it for a test
from torch.utils.data import DataLoader, Dataset

from tests.ranks import on_ranks
from tests.samples import DIM, META, change, evaluate, make_samples
from vop_mm.evaluation import RetrievalMetric
from vop_mm.structures import VideoTextDataSample


# -- what must not matter -------------------------------------------------------------------------------------------
@pytest.mark.parametrize('levels', [None, 2])
def test_order_and_batch_size_do_not_matter(levels, tmp_path):
    samples = make_samples(levels=levels)
    expected = evaluate(samples, dump=tmp_path / 'a.npz')
    for seed, batch in enumerate((1, 4, 23)):
        shuffled = [samples[i] for i in np.random.default_rng(seed).permutation(len(samples))]
        assert evaluate(shuffled, batch, dump=tmp_path / 'b.npz') == expected
        with np.load(tmp_path / 'a.npz') as one, np.load(tmp_path / 'b.npz') as two:
            assert all((one[key] == two[key]).all() for key in (*one, *two))


def test_evaluations_do_not_add_up():
    metric = RetrievalMetric()
    first, second = make_samples(seed=1), make_samples(9, seed=2)
    assert [evaluate(s, metric=metric) for s in (first, second, first)] == [evaluate(s) for s in (first, second, first)]


def test_a_record_does_not_carry_its_batch():
    metric = RetrievalMetric()
    wide = torch.zeros(1000, DIM)
    metric.process(None, [dict(video_id='a', video_feature=wide[0], text_features=wide[1:3])])
    assert len(pickle.dumps(metric.results)) < 3000


class Samples(Dataset):
    metainfo = META

    def __init__(self, count):
        self.samples = make_samples(count, seed=5, levels=3)
        self.samples[1] = change(self.samples[1], unreadable=[('b.mp4', 'truncated')])

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return dict(inputs=index, data_samples=self.samples[index])


def test_loop(count, batch, shuffle, collect_device, collect_dir):
    """MMEngine's own test loop, sampler, collate and evaluator over a model that returns what it gets."""
    dataset = Samples(count)
    loader = DataLoader(dataset, batch, sampler=DefaultSampler(dataset, shuffle=shuffle, seed=3),
                        collate_fn=pseudo_collate)
    model = SimpleNamespace(eval=lambda: None, test_step=lambda data: data['data_samples'])
    runner = SimpleNamespace(call_hook=lambda *args, **kwargs: None, model=model, visualizer=SimpleNamespace())
    return Loop(runner, loader, Evaluator(dict(type='vop_mm.RetrievalMetric', collect_device=collect_device,
                                               collect_dir=collect_dir))).run()


test_loop.__test__ = False


@pytest.mark.parametrize('world', [2, 4])
def test_processes_do_not_matter(tmp_path, world):
    # numbers that 2 and 4 don't divide, so that the sampler repeats items, fewer than processes; and one that 2 does
    cases = [(23, 4, False, 'gpu', None), (23, 1, True, 'gpu', None), (23, 3, True, 'cpu', 'd'),
             (3, 5, False, 'gpu', None), (22, 3, False, 'gpu', None)]
    found = on_ranks(lambda: dict(found=[
        test_loop(*case[:-1], case[-1] and f'{tmp_path}/{number}') for number, case in enumerate(cases)]), world)
    single = [test_loop(count, 7, False, 'gpu', None) for count, *_ in cases]
    assert all(rank['found'] == single for rank in found)  # bit for bit, and the same on all


# -- what is refused ------------------------------------------------------------------------------------------------
def with_features(sample, **features):
    sample = change(sample)
    sample.set_data(features)
    return sample


def broken(sample, which, place, value):
    features = sample.get(which).clone()
    features[place] = value
    return with_features(sample, **{which: features})


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_a_feature_that_is_not_finite_is_named(value):
    samples = make_samples()
    number = next(i for i, sample in enumerate(samples) if len(sample.captions) > 2)
    name = samples[number].video_id
    for bad, says in ((broken(samples[number], 'video_feature', 3, value),
                       f'^{name}: the feature of the video is not finite'),
                      (broken(samples[number], 'text_features', (2, 5), value),
                       rf"^{name}: the feature of text 2 \('{name[5:]}: caption 2'\) is not finite")):
        with pytest.raises(ValueError, match=says):
            evaluate([*samples[:number], bad, *samples[number + 1:]])


@pytest.mark.parametrize(('spoil', 'says'), [
    (lambda s: [*s, s[3]], '^{3} was evaluated twice'),
    (lambda s: [change(s[3], video_id=7), *s[1:]], 'no video_id that is a text, but 7'),
    (lambda s: [*s[:3], change(s[3], captions=['x'] * 9), *s[4:]], '^{3}: 9 captions, but [1-4] text_features'),
    (lambda s: [with_features(s[0], video_feature=torch.zeros(2, DIM))], r'^{0}: expected .* got \(2, 8\) and'),
    (lambda s: [with_features(s[0], text_features=torch.zeros(0, DIM))], r'^{0}: expected .* got \(8,\) and \(0, 8\)'),
    (lambda s: [with_features(s[0], text_features=torch.zeros(1, 9))], r'^{0}: expected .* got \(8,\) and \(1, 9\)'),
    (lambda s: [VideoTextDataSample(metainfo=dict(video_id='new'))], '^new: the model set no video_feature'),
    (lambda s: [VideoTextDataSample(metainfo=dict(video_id='new', unreadable=[('a', 'b')]))],
     '^nothing to evaluate: 1 videos were left out'),
    (lambda s: [], '^nothing to evaluate'),
])
def test_bad_samples(spoil, says):
    samples = make_samples()
    with pytest.raises(ValueError, match=says.replace('{0}', samples[0].video_id).replace('{3}', samples[3].video_id)):
        evaluate(spoil(samples))


def test_features_of_different_size():
    samples = make_samples()
    texts = torch.zeros(len(samples[0].captions), 9)
    wide = with_features(samples[0], video_feature=torch.zeros(9), text_features=texts)
    with pytest.raises(ValueError, match='dimensions, those of .* [89]$'):
        evaluate([wide, *samples[1:]])
