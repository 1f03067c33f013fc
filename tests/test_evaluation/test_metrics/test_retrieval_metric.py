"""The metric: matched by id, whatever the order, the batches and the processes; and what it refuses."""
import json
import logging
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import TestLoop as Loop  # under its own name pytest takes it for a test
from torch.utils.data import DataLoader, Dataset

from tests.heads import FramesByText, MirrorSimilarity, WordsByFrames, one_by_one
from tests.ranks import on_ranks
from tests.test_evaluation import brute_force
from vop_mm.evaluation import RetrievalMetric
from vop_mm.evaluation.functional import blocks, evaluate_retrieval, pair_accuracy, retrieval_metrics
from vop_mm.models.heads import MeanPoolSimilarity
from vop_mm.registry import METRICS
from vop_mm.structures import VideoTextDataSample

DIM = 8
META = dict(dataset='MSVD', split='test', protocol='multi-caption')


def make_samples(count=23, seed=0, twins=False, levels=None):
    """Samples as a model's ``predict`` returns them, one to four captions each, features of a batch cut in pieces."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, count)

    def draw(n):
        values = rng.standard_normal((n, DIM)) if levels is None else rng.integers(0, levels, (n, DIM))
        return torch.from_numpy(values.astype(np.float32))

    videos, texts = draw(count), draw(counts.sum()).split(counts.tolist())
    samples = []
    for i, name in enumerate(rng.permutation(count)):
        meta = dict(video_id=f'video{name}', video_index=i, num_frames=12, unreadable=[],
                    captions=[f'{name}: caption {c}' for c in range(counts[i])])
        samples.append(VideoTextDataSample(metainfo=meta))
        samples[-1].set_data(dict(video_feature=videos[i], text_features=texts[i]))
    if twins:  # the last one has none
        for one, two in zip(samples[:-1:2], samples[1::2], strict=True):
            one.set_metainfo(dict(twin=two.video_id))
            two.set_metainfo(dict(twin=one.video_id))
    return samples


def change(sample, **meta):
    """A sample with other metainfo (None takes a key away)."""
    changed = VideoTextDataSample(metainfo={k: v for k, v in {**sample.metainfo, **meta}.items() if v is not None})
    changed.set_data(dict(sample.items()))
    return changed


def evaluate(samples, batch=5, meta=None, metric=None, **options):
    evaluator = Evaluator(metric or dict(type='vop_mm.RetrievalMetric', **options))
    evaluator.dataset_meta = meta
    for start in range(0, len(samples), batch):
        evaluator.process(samples[start:start + batch])
    return evaluator.evaluate(len(samples))


def by_hand(samples):
    """Similarity in float64 and text to video, in the samples' order."""
    similarity = torch.cat([s.text_features for s in samples]).double() @ torch.stack(
        [s.video_feature for s in samples]).double().T
    return similarity, np.repeat(np.arange(len(samples)), [len(s.text_features) for s in samples])


def flat(metrics):
    return {f'{d}/{key}': value for d, values in metrics.items() for key, value in values.items()}


# -- values ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('protocol', ['video', 'caption'])
@pytest.mark.parametrize('ties', ['pessimistic', 'optimistic', 'mean'])
@pytest.mark.parametrize('levels', [None, 2])
def test_equals_the_function_and_plain_loops(levels, ties, protocol):
    samples = make_samples(levels=levels)
    similarity, text_to_video = by_hand(samples)
    found = evaluate(samples, ties=ties, v2t_protocol=protocol)
    assert found == flat(retrieval_metrics(similarity, text_to_video, ties, protocol))
    assert found == pytest.approx(flat(brute_force.metrics(similarity, text_to_video, ties, protocol)), rel=1e-12)


def test_keys_and_what_they_are_made_of():
    found = evaluate(make_samples())
    assert list(found) == [f'{d}/{key}' for d in ('t2v', 'v2t')
                           for key in ('R1', 'R5', 'R10', 'R50', 'Rsum', 'MdR', 'MnR')]
    assert json.loads(json.dumps(found)) == found  # plain floats
    assert set(evaluate(make_samples(), prefix='dev')) == {f'dev/{key}' for key in found}


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


def test_half_precision_features_are_taken_as_they_are():
    samples = make_samples()
    for sample in samples:
        sample.set_data(dict(video_feature=sample.video_feature.bfloat16(), text_features=sample.text_features.half()))
    assert evaluate(samples) == flat(retrieval_metrics(*by_hand(samples)))


# -- what must not matter -------------------------------------------------------------------------------------------
@pytest.mark.parametrize('levels', [None, 2])
def test_order_and_batch_size_do_not_matter(levels, tmp_path):
    samples = make_samples(twins=True, levels=levels)
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
        self.samples = make_samples(count, seed=5, twins=True, levels=3)
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
    assert all('pair_accuracy' in metrics for metrics in single[:3])
    assert all(rank['found'] == single for rank in found)  # bit for bit, and the same on all


# -- what is left out, dumped, said ---------------------------------------------------------------------------------
@pytest.fixture
def lines():
    """What MMEngine's current logger says meanwhile, as (level, text)."""
    logger, said = MMLogger.get_current_instance(), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append((record.levelno, record.getMessage()))
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_what_could_not_be_read_is_left_out_and_named(lines):
    samples = make_samples()
    expected = evaluate(samples[2:])
    bad = [change(sample, unreadable=[('x.mp4', 'no video stream')]) for sample in samples[:2]]
    bad[0].set_data(dict(video_feature=torch.full((DIM,), torch.nan)))  # of black frames: never looked at
    metric = RetrievalMetric()
    assert evaluate([*samples[2:], *bad], metric=metric, meta=META) == expected
    names = sorted(sample.video_id for sample in bad)
    assert lines[-1] == (
        logging.WARNING, f'2 of 23 videos are left out of these figures, with their captions: {", ".join(names)}')
    assert metric.summary == dict(META, num_texts=sum(len(s.captions) for s in samples[2:]), num_videos=21,
                                  ties='pessimistic', v2t_protocol='video', left_out=names)


def test_the_log_says_what_was_measured(lines):
    samples = make_samples(3)
    texts = sum(len(s.captions) for s in samples)
    evaluate(samples, meta=META, ties='mean')
    evaluate(samples, v2t_protocol='caption')
    assert [text for _, text in lines] == [
        f"Retrieval on MSVD test, multi-caption, {texts} captions, gallery of 3 videos: ties mean, v2t by the "
        "maximum over a video's captions",
        f'Retrieval on unnamed dataset, {texts} captions, gallery of 3 videos: ties pessimistic, v2t by its '
        'best caption']


def unit_samples(*args, **options):
    samples = make_samples(*args, **options)
    for sample in samples:
        sample.set_data({key: torch.nn.functional.normalize(value, dim=-1) for key, value in sample.items()})
    return samples


def test_post_processing_and_intervals_have_keys_of_their_own(tmp_path):
    training, samples = unit_samples(30, seed=7), unit_samples(30, seed=8)
    plain = evaluate(samples)
    evaluate(training, dump=str(tmp_path / 'bank.npz'))
    found = evaluate(samples, postprocess=['dsl', 'qbnorm'], query_bank=str(tmp_path / 'bank.npz'), bootstrap=50)
    assert {key: found[key] for key in plain} == plain
    names = {key.partition('/')[2] for key in plain}
    rows = {f'{direction}{name}' for direction in ('t2v', 'v2t') for name in ('', '_dsl', '_qbnorm')}
    assert {key.partition('/')[0] for key in found} == rows
    assert {key.partition('/')[2] for key in found} == names | {f'{n}_{e}' for n in names for e in ('low', 'high')}
    similarity, text_to_video = by_hand(samples)
    expected = brute_force.metrics(brute_force.dual_softmax(similarity, 't2v'), text_to_video)['t2v']
    assert {name: found[f't2v_dsl/{name}'] for name in expected} == pytest.approx(expected)
    for options, says in ((dict(postprocess=['qbnorm']), 'needs a query bank'), (dict(postprocess=['dls']), "'dls'"),
                          (dict(query_bank='no.npz'), 'not requested'), (dict(bootstrap=-1), 'bootstrap')):
        with pytest.raises(ValueError, match=says):
            RetrievalMetric(**options)
    with pytest.raises(FileNotFoundError, match='no.npz'):
        RetrievalMetric(postprocess=['qbnorm'], query_bank='no.npz')


def test_dump_can_be_scored_again(tmp_path):
    samples = make_samples()
    path = tmp_path / 'new' / 'features.npz'
    found = evaluate(samples, dump=str(path))
    with np.load(path, allow_pickle=False) as data:
        assert flat(retrieval_metrics(data['text_features'] @ data['video_features'].T, data['text_to_video'])) == found
        expected = sorted(samples, key=lambda sample: sample.video_id)
        assert data['video_ids'].tolist() == [sample.video_id for sample in expected]
        assert data['captions'].tolist() == [caption for sample in expected for caption in sample.captions]
    assert [p.name for p in path.parent.iterdir()] == ['features.npz']
    evaluate([change(sample, captions=None) for sample in samples], dump=path)
    with np.load(path) as data:
        assert set(data) == {'video_ids', 'text_to_video', 'text_features', 'video_features'}


@pytest.mark.parametrize(('split', 'good'), [('train', True), ('train_9k', True), ('dev', False), ('test', False)])
def test_a_query_bank_is_of_the_training_split(tmp_path, split, good):
    samples = unit_samples()
    evaluate(samples, meta=dict(dataset='made', split=split), dump=str(tmp_path / 'bank.npz'))
    with np.load(tmp_path / 'bank.npz', allow_pickle=False) as data:
        assert (str(data['dataset']), str(data['split'])) == ('made', split) and 'protocol' not in data
    options = dict(postprocess=['qbnorm'], query_bank=str(tmp_path / 'bank.npz'))
    if good:
        assert 't2v_qbnorm/R1' in evaluate(samples, **options)
    else:
        with pytest.raises(ValueError, match=f'bank.npz is of the split {split}: queries must come from'):
            evaluate(samples, **options)


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


@pytest.mark.parametrize('options', [dict(ties='none'), dict(v2t_protocol='group')])
def test_bad_options_before_anything_runs(options):
    with pytest.raises(ValueError, match='must be one of'):
        METRICS.build(dict(type='RetrievalMetric', **options))


# -- heads ----------------------------------------------------------------------------------------------------------
def of_head(kind, count=23):
    """A head with samples of what it keeps, every other video's padding masked; and what it says pair by pair."""
    rng = torch.Generator().manual_seed(4)
    torch.manual_seed(4)
    head, samples = kind(), make_samples(count)
    head.prepare(SimpleNamespace(embed_dim=DIM))
    for i, sample in enumerate(samples):
        n, mask = len(sample.text_features), torch.arange(6) < 2 + i % 5
        frames, words = torch.randn(1, 6, DIM, generator=rng), torch.randn(n, 5, DIM, generator=rng)
        word_mask = torch.arange(5) < 1 + torch.randint(5, (n, 1), generator=rng)
        sample.set_data(dict(video_feature=head.video(frames, mask[None])[0],
                             text_features=head.text(sample.text_features, words, word_mask)))
        if i % 2 == 0:
            sample.set_data(dict(frame_mask=mask))
    texts, videos = torch.cat([s.text_features for s in samples]), torch.stack([s.video_feature for s in samples])
    masks = torch.stack([s.get('frame_mask', torch.ones(6, dtype=torch.bool)) for s in samples])
    with torch.no_grad():
        return head, samples, one_by_one(head, texts, videos, masks)


def metric_of(head, **options):
    metric = RetrievalMetric(**options)
    metric.use_head(head)
    return metric


@pytest.mark.parametrize('pairs', [None, 1, 300, 5000])
@pytest.mark.parametrize('kind', [MirrorSimilarity, FramesByText, WordsByFrames])
def test_a_head_ranks_as_it_says_of_each_pair(kind, pairs, monkeypatch):
    if pairs is not None:
        monkeypatch.setattr(blocks, '_HEAD_BLOCK', pairs)
    head, samples, similarity = of_head(kind)
    text_to_video = by_hand_texts(samples)
    expected = {f'{row}/{key}': value for row, values in evaluate_retrieval(
        similarity.double(), text_to_video, postprocess=['dsl', 'sinkhorn']) for key, value in values.items()}
    metric = metric_of(head, postprocess=['dsl', 'sinkhorn'])
    assert evaluate(samples, metric=metric) == pytest.approx(expected, rel=1e-9)
    assert evaluate(samples[::-1], batch=3, metric=metric) == pytest.approx(expected, rel=1e-9)
    assert not metric.results


def by_hand_texts(samples):
    return np.repeat(np.arange(len(samples)), [len(s.text_features) for s in samples])


def test_a_mirror_is_not_scored_as_a_cosine():
    head, samples, similarity = of_head(MirrorSimilarity)
    mirrored, plain = evaluate(samples, metric=metric_of(head)), evaluate(samples)
    assert mirrored['t2v/MnR'] == pytest.approx(len(samples) + 1 - plain['t2v/MnR'])


def test_a_head_over_two_processes():
    def on_rank():
        head, samples, _ = of_head(FramesByText)
        own = samples[torch.distributed.get_rank()::2]
        evaluator = Evaluator(metric_of(head))
        evaluator.process(own)
        return evaluator.evaluate(len(samples))

    head, samples, _ = of_head(FramesByText)
    alone = evaluate(samples, metric=metric_of(head))
    assert on_ranks(on_rank, 2) == [alone, alone]


def test_the_plain_head_changes_nothing():
    samples = make_samples()
    for sample in samples:
        sample.set_data(dict(frame_mask=torch.ones(6, dtype=torch.bool)))
    metric = metric_of(MeanPoolSimilarity())
    assert metric.head is None and evaluate(samples, metric=metric) == evaluate(samples)


def test_what_a_head_can_not_do_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match='the head FramesByText scores otherwise .* a dump holds vectors alone'):
        metric_of(FramesByText(), dump=tmp_path / 'x.npz')
    (tmp_path / 'bank.npz').touch()
    with pytest.raises(ValueError, match='the head MirrorSimilarity .* a query bank holds vectors'):
        metric_of(MirrorSimilarity(), postprocess=['qbnorm'], query_bank=tmp_path / 'bank.npz')


def test_a_head_that_gives_another_shape_or_no_numbers_is_refused():
    head, samples, _ = of_head(FramesByText, 3)
    head.similarity = lambda text, video, mask=None: torch.zeros(len(video), len(text) + 1)
    with pytest.raises(ValueError, match='FramesByText.similarity gave the shape'):
        evaluate(samples, metric=metric_of(head))
    head.similarity = lambda text, video, mask=None: torch.full((len(text), len(video)), float('nan'))
    with pytest.raises(ValueError, match='similarity is not finite at text 0, video 0'):
        evaluate(samples, metric=metric_of(head))
    samples[1].text_features = samples[1].text_features[:, :-1]
    with pytest.raises(ValueError, match='have 8 dimensions, those of .* 7|have 7 dimensions, those of .* 8'):
        evaluate(samples, metric=metric_of(head))
