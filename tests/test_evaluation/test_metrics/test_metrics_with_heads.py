"""Metrics of a model whose head scores otherwise than by a cosine."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import Evaluator

from tests.heads import FramesByText, MirrorSimilarity, WordsByFrames, one_by_one
from tests.ranks import on_ranks
from tests.samples import DIM, evaluate, make_samples, text_to_video
from vop_mm.evaluation import RetrievalMetric
from vop_mm.evaluation.functional import blocks, evaluate_retrieval
from vop_mm.models.heads import MeanPoolSimilarity


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
    expected = {f'{row}/{key}': value for row, values in evaluate_retrieval(
        similarity.double(), text_to_video(samples), postprocess=['dsl', 'sinkhorn']) for key, value in values.items()}
    metric = metric_of(head, postprocess=['dsl', 'sinkhorn'])
    assert evaluate(samples, metric=metric) == pytest.approx(expected, rel=1e-9)
    assert evaluate(samples[::-1], batch=3, metric=metric) == pytest.approx(expected, rel=1e-9)
    assert not metric.results


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
