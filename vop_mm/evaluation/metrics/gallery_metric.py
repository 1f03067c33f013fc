"""Base of metrics that compare all captions of a split with all its videos."""
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn

from ..functional import similarity_matrix


@dataclass
class Gallery:
    """All samples of an evaluation, sorted by ``video_id``.

    Args:
        records (list[dict]): What was kept of each video: ``video_id`` and the metric's own ``keys``.
        left_out (list[str]): Sorted ids of unreadable videos, which have no record.
        videos (Tensor): Features of the videos, [V, ...].
        texts (Tensor): Features of all their captions, [T, ...].
        text_to_video (ndarray): Row of each caption's video, [T] int64.
        similarity (Tensor): Float32 [T, V].
    """
    records: list[dict]
    left_out: list[str]
    videos: Tensor
    texts: Tensor
    text_to_video: np.ndarray
    similarity: Tensor


class GalleryMetric(BaseMetric):
    """Base of metrics that are computed from the similarity of all captions and videos of a split.

    Samples are identified by their ``video_id`` and sorted by it before anything is computed: results do not depend on
    their order, the batch size or the number of processes, down to the last bit. The metric reads ``video_id``,
    ``video_feature`` [D] and ``text_features`` [n, D] of each data sample and, if present, ``captions`` (list of n
    str), ``unreadable`` (if not empty, the sample is left out of the gallery) and what ``keys`` names. With a head
    (:meth:`use_head`), the features may have any shape, and ``frame_mask`` [F] is read as well.

    A subclass implements :meth:`compute`.

    Args:
        collect_device (str): ``'gpu'`` collects over the process group, on any device (including gloo on a CPU);
            ``'cpu'`` over files in ``collect_dir``, which all processes must share. Defaults to ``'gpu'``.
        prefix (str, optional): Prefix of the keys, followed by a slash. Defaults to None: none.
        collect_dir (str, optional): See ``collect_device``.

    Attributes:
        keys (tuple[str, ...]): Metainfo of a sample to keep in its record, None where it is missing.
    """
    default_prefix = ''  # empty: None would make MMEngine warn
    keys: tuple[str, ...] = ()

    def __init__(self, collect_device: str = 'gpu', prefix: str | None = None, collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.head: nn.Module | None = None

    def use_head(self, head: nn.Module) -> None:
        """Use a model's head for scoring; called by the runner with the head of the evaluated model.

        Args:
            head (SimilarityHead): The head. Cosines are computed by the metric itself, as without a head.
        """
        self.head = None if head.is_cosine else head

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Store the required values of a batch.

        Args:
            data_batch (dict, optional): Ignored.
            data_samples (Sequence[dict]): Data samples; see the class.

        Raises:
            ValueError: A sample lacks a feature, its features have the wrong shape, or one is not finite; the message
                names the ``video_id`` and whether it is the video or which text.
        """
        # exactly one record per sample in all cases: MMEngine removes a sampler's padding by counting records
        self.results.extend(_record(sample, self.keys, self.head is None) for sample in data_samples)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics of all samples.

        Args:
            results (list[dict]): Records of :meth:`process`, in any order.

        Returns:
            dict: Metrics; see the class.

        Raises:
            ValueError: A duplicate ``video_id``, features of different sizes, or nothing to evaluate.
        """
        results = sorted(results, key=lambda record: record['video_id'])
        for record, following in zip(results[:-1], results[1:], strict=True):
            if record['video_id'] == following['video_id']:
                raise ValueError(f"{record['video_id']} was evaluated twice: a gallery holds a video once")
        left_out = [record['video_id'] for record in results if 'video' not in record]
        results = [record for record in results if 'video' in record]
        if not results:
            raise ValueError(f'nothing to evaluate: {len(left_out)} videos were left out, and there are no others')
        videos, texts = _stack(results)
        text_to_video = np.repeat(np.arange(len(results)), [len(record['texts']) for record in results])
        similarity = similarity_matrix(texts, videos, self.head, _masks(results))
        return self.compute(Gallery(results, left_out, videos, texts, text_to_video, similarity))

    @abstractmethod
    def compute(self, gallery: Gallery) -> dict[str, float]:
        """Compute the metrics of a gallery.

        Args:
            gallery (Gallery): All samples and their similarity.

        Returns:
            dict: Metrics by key.
        """


def _record(sample: dict, keys: Sequence[str], cosine: bool) -> dict:
    video_id = sample.get('video_id')
    if not isinstance(video_id, str):
        raise ValueError(f'a data sample has no video_id that is a text, but {video_id!r}')
    if sample.get('unreadable'):
        return dict(video_id=video_id)
    video, texts = sample.get('video_feature'), sample.get('text_features')
    if not isinstance(video, Tensor) or not isinstance(texts, Tensor):
        raise ValueError(f'{video_id}: the model set no video_feature or no text_features')
    if video.ndim < 1 or texts.ndim < 2 or len(texts) == 0 or cosine and (
            video.ndim != 1 or texts.ndim != 2 or texts.shape[1] != len(video)):
        raise ValueError(f'{video_id}: expected video_feature [D] and text_features [n, D], '
                         f'got {tuple(video.shape)} and {tuple(texts.shape)}')
    captions = sample.get('captions')
    if captions is not None and len(captions) != len(texts):
        raise ValueError(f'{video_id}: {len(captions)} captions, but {len(texts)} text_features')
    # Copied: these are views of a whole batch, and pickle, which sends them to the main process, would send the whole
    # batch with each of them.
    video, texts = (x.detach().to('cpu', torch.float32, copy=True) for x in (video, texts))
    if not torch.isfinite(video).all():
        raise ValueError(f'{video_id}: the feature of the video is not finite')
    if not torch.isfinite(texts).all():
        row = int(torch.isfinite(texts).flatten(1).all(1).logical_not().nonzero()[0])
        which = f' ({captions[row]!r})' if captions is not None else ''
        raise ValueError(f'{video_id}: the feature of text {row}{which} is not finite')
    mask = None if cosine or sample.get('frame_mask') is None else sample['frame_mask'].cpu().clone()
    return dict(video_id=video_id, video=video, texts=texts, mask=mask, **{key: sample.get(key) for key in keys})


def _stack(results: list[dict]) -> tuple[Tensor, Tensor]:
    """Stack the features of the videos, [V, ...], and of all their texts, [T, ...]."""
    sizes = [[' x '.join(map(str, x.shape)) for x in (record['video'], record['texts'][0])] for record in results]
    for record, (video, text) in zip(results, sizes, strict=True):
        if [video, text] != sizes[0]:
            old, new = (sizes[0][0], video) if video != sizes[0][0] else (sizes[0][1], text)
            raise ValueError(f"features of {results[0]['video_id']} have {old} dimensions, "
                             f"those of {record['video_id']} {new}")
    return torch.stack([record['video'] for record in results]), torch.cat([record['texts'] for record in results])


def _masks(results: list[dict]) -> Tensor | None:
    """Return the mask of frames that are not padding, [V, F], or None if no video has padding."""
    known = next((record['mask'] for record in results if record['mask'] is not None), None)
    if known is None:
        return None
    whole = torch.ones_like(known)
    return torch.stack([whole if record['mask'] is None else record['mask'] for record in results])
