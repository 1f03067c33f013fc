"""Samples as a model returns them, and what metrics make of them."""
import numpy as np
import torch
from mmengine.evaluator import Evaluator

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
    """Results of MMEngine's evaluator with a metric, by default that of retrieval."""
    evaluator = Evaluator(metric or dict(type='vop_mm.RetrievalMetric', **options))
    evaluator.dataset_meta = meta
    for start in range(0, len(samples), batch):
        evaluator.process(samples[start:start + batch])
    return evaluator.evaluate(len(samples))


def by_hand(samples):
    """Similarity in float64 and text to video, in the samples' order."""
    similarity = torch.cat([s.text_features for s in samples]).double() @ torch.stack(
        [s.video_feature for s in samples]).double().T
    return similarity, text_to_video(samples)


def text_to_video(samples):
    """Column of each caption's video, in the samples' order."""
    return np.repeat(np.arange(len(samples)), [len(s.text_features) for s in samples])


def flat(metrics):
    """Metrics of both directions under the keys of the metric."""
    return {f'{d}/{key}': value for d, values in metrics.items() for key, value in values.items()}
