"""Accuracy of telling a clip from its twin, which differs only in the order of its frames."""
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vop_mm.evaluation.metrics import Gallery, GalleryMetric
from vop_mm.registry import METRICS


@METRICS.register_module()
class PairAccuracy(GalleryMetric):
    """How often a caption is nearer to its own video than to that video's twin, in percent.

    It reads ``twin`` (``video_id`` of the video that differs only in its event) and ``kind`` (kind of this event, str)
    of each data sample, next to what :class:`GalleryMetric` reads. Twins count where both are in the gallery.

    Keys of the result: ``pair_accuracy``, and ``pair_accuracy/<kind>`` for each kind of event; nothing if no video has
    a twin.

    Examples:
        >>> val_evaluator = [dict(type='RetrievalMetric'), dict(type='PairAccuracy')]
    """
    keys = ('twin', 'kind')

    def compute(self, gallery: Gallery) -> dict[str, float]:
        columns = {record['video_id']: i for i, record in enumerate(gallery.records)}
        twins = np.array([columns.get(record['twin'], -1) for record in gallery.records])
        kinds = np.array([record['kind'] or '' for record in gallery.records])
        if not (twins >= 0).any():
            return {}
        values = {'pair_accuracy': pair_accuracy(gallery.similarity, gallery.text_to_video, twins)}
        for kind in sorted(set(kinds[twins >= 0]) - {''}):
            of_kind = np.where(kinds == kind, twins, -1)
            values[f'pair_accuracy/{kind}'] = pair_accuracy(gallery.similarity, gallery.text_to_video, of_kind)
        return values


def pair_accuracy(similarity: Tensor, text_to_video: Sequence[int], twins: Sequence[int]) -> float:
    """Compute how often a caption scores its own video higher than that video's twin.

    For a clip and its reverse, a method that ignores the order of frames gets 50.

    Args:
        similarity (Tensor): [num_texts, num_videos].
        text_to_video (Sequence[int]): Column of each text's video, [num_texts].
        twins (Sequence[int]): Column of each video's twin, [num_videos], -1 if it has none.

    Returns:
        float: Percentage of the captions of videos with a twin; equal scores count half.

    Raises:
        ValueError: A video is its own twin, or there are no twins.
    """
    videos, twins = torch.as_tensor(text_to_video), torch.as_tensor(twins)
    if (twins == torch.arange(len(twins))).any():
        raise ValueError(f'video {int((twins == torch.arange(len(twins))).nonzero()[0])} is its own twin')
    texts = (twins[videos] >= 0).nonzero().flatten()
    if not len(texts):
        raise ValueError('no video has a twin')
    own, other = similarity[texts, videos[texts]], similarity[texts, twins[videos[texts]]]
    wins, draws = torch.count_nonzero(own > other).item(), torch.count_nonzero(own == other).item()
    return 100. * (wins + 0.5 * draws) / len(texts)
