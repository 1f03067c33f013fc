"""Text-video retrieval over a whole split, as an MMEngine metric."""
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor, nn

from vop_mm.registry import METRICS
from vop_mm.utils.files import atomic_write

from ..functional import check_postprocess, evaluate_retrieval, load_query_bank, pair_accuracy, similarity_matrix

_OPTIONS = dict(ties=('pessimistic', 'optimistic', 'mean'), v2t_protocol=('video', 'caption'))
_META = ('dataset', 'split', 'protocol')


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """Recalls and ranks in both directions, over all captions and unique videos.

    Samples are identified by their ``video_id`` and sorted by it before anything is computed: results do not depend on
    their order, the batch size or the number of processes, down to the last bit. The metric reads ``video_id``,
    ``video_feature`` [D] and ``text_features`` [n, D] of each data sample and, if present, ``captions`` (list of n
    str), ``twin`` (``video_id`` of the video that differs only in its event), ``kind`` (kind of this event, str) and
    ``unreadable`` (if not empty, the sample is left out of the gallery, counted and reported). With a head
    (:meth:`use_head`), the features may have any shape, and ``frame_mask`` [F] is read as well.

    Keys of the result: ``t2v/R1``, ``t2v/R5``, ``t2v/R10``, ``t2v/R50``, ``t2v/Rsum``, ``t2v/MdR``, ``t2v/MnR``, and
    the same for ``v2t``; with post-processing, also ``t2v_dsl`` and so on; with a bootstrap, also ``t2v/R1_low``,
    ``t2v/R1_high`` and so on, the ends of 95% intervals; ``pair_accuracy`` if videos have twins, and
    ``pair_accuracy/<kind>`` for each kind of event. Recalls and accuracy are percentages.

    Args:
        ties (str): Ranking of equal scores; see :func:`~vop_mm.evaluation.functional.retrieval_metrics`. Defaults to
            ``'pessimistic'``.
        v2t_protocol (str): Treatment of several captions of a video in v2t; see
            :func:`~vop_mm.evaluation.functional.video_to_text_ranks`. Defaults to ``'video'``.
        postprocess (Sequence[str]): Post-processing methods, reported in rows of their own: any of ``'dsl'``,
            ``'sinkhorn'`` and ``'qbnorm'``; see :func:`~vop_mm.evaluation.functional.evaluate_retrieval`. Defaults to
            none.
        query_bank (str, optional): Dump of the training split, for ``'qbnorm'``.
        bootstrap (int): Number of samples for the intervals; 0: none. Defaults to 0.
        dump (str, optional): ``.npz`` file to write: ``video_ids`` [V], ``captions`` [T] (if the samples have them),
            ``text_to_video`` [T], ``text_features`` [T, D], ``video_features`` [V, D], and ``dataset``, ``split`` and
            ``protocol`` if they are in the dataset's metainfo.
        collect_device (str): ``'gpu'`` collects over the process group, on any device (including gloo on a CPU);
            ``'cpu'`` over files in ``collect_dir``, which all processes must share. Defaults to ``'gpu'``.
        prefix (str, optional): Prefix of the keys, followed by a slash. Defaults to None: keys as above.
        collect_dir (str, optional): See ``collect_device``.

    Attributes:
        summary (dict): Description of the last evaluation, in the main process: ``dataset, split, protocol`` (from the
            dataset's metainfo, or None), ``num_texts, num_videos, ties, v2t_protocol, left_out`` (sorted ids).

    Examples:
        >>> val_evaluator = dict(type='RetrievalMetric', dump='features.npz')
    """
    default_prefix = ''  # empty: None would make MMEngine warn

    def __init__(self,
                 ties: str = 'pessimistic',
                 v2t_protocol: str = 'video',
                 postprocess: Sequence[str] = (),
                 query_bank: str | Path | None = None,
                 bootstrap: int = 0,
                 dump: str | Path | None = None,
                 collect_device: str = 'gpu',
                 prefix: str | None = None,
                 collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        for name, value in (('ties', ties), ('v2t_protocol', v2t_protocol)):  # checked now, not after an epoch
            if value not in _OPTIONS[name]:
                raise ValueError(f'{name} must be one of {", ".join(map(repr, _OPTIONS[name]))}, got {value!r}')
        check_postprocess(postprocess, query_bank is not None)
        if query_bank is not None and not Path(query_bank).is_file():
            raise FileNotFoundError(f'query bank not found: {query_bank}')
        if bootstrap < 0:
            raise ValueError(f'bootstrap must be at least 0, got {bootstrap}')
        self.postprocess, self.query_bank, self.bootstrap = tuple(postprocess), query_bank, bootstrap
        self.ties = ties
        self.v2t_protocol = v2t_protocol
        self.dump = dump
        self.summary: dict = {}
        self.head: nn.Module | None = None

    def use_head(self, head: nn.Module) -> None:
        """Use a model's head for scoring; called by the runner with the head of the evaluated model.

        Args:
            head (SimilarityHead): The head. Cosines are computed by the metric itself, as without a head.

        Raises:
            ValueError: The head is not a cosine, and a dump or a query bank is requested.
        """
        for what, asked in (('a dump', self.dump), ('a query bank', self.query_bank)):
            if asked is not None:
                head.require_cosine(what)
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
        self.results.extend(_record(sample, self.head is None) for sample in data_samples)

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
        counts = [len(record['texts']) for record in results]
        text_to_video = np.repeat(np.arange(len(results)), counts)
        self._report(results, len(texts), left_out)
        if self.dump is not None:
            self._dump(results, videos, texts, text_to_video)

        similarity = similarity_matrix(texts, videos, self.head, _masks(results))
        bank = None if self.query_bank is None else load_query_bank(self.query_bank, texts, videos)
        flat = {f'{row}/{key}': value for row, values in evaluate_retrieval(
            similarity, text_to_video, self.ties, self.v2t_protocol, self.postprocess, bank, self.bootstrap)
            for key, value in values.items()}
        twins = _twins(results)
        if (twins >= 0).any():
            flat['pair_accuracy'] = pair_accuracy(similarity, text_to_video, twins)
        kinds = np.array([record['kind'] or '' for record in results])
        for kind in sorted(set(kinds[twins >= 0]) - {''}):
            of_kind = np.where(kinds == kind, twins, -1)
            flat[f'pair_accuracy/{kind}'] = pair_accuracy(similarity, text_to_video, of_kind)
        return flat

    def _report(self, results: list[dict], num_texts: int, left_out: list[str]) -> None:
        meta = self.dataset_meta or {}
        self.summary = dict(
            **{key: meta.get(key) for key in _META}, num_texts=num_texts, num_videos=len(results),
            ties=self.ties, v2t_protocol=self.v2t_protocol, left_out=left_out)
        reading = 'the maximum over a video\'s captions' if self.v2t_protocol == 'video' else 'its best caption'
        print_log(f'Retrieval on {what_was_evaluated(self)}: ties {self.ties}, v2t by {reading}', logger='current')
        if left_out:
            print_log(f'{len(left_out)} of {len(left_out) + len(results)} videos are left out of these figures, with '
                      f'their captions: {", ".join(left_out)}', logger='current', level=logging.WARNING)

    def _dump(self, results: list[dict], videos: Tensor, texts: Tensor, text_to_video: np.ndarray) -> None:
        arrays = dict(
            video_ids=np.array([record['video_id'] for record in results]), text_to_video=text_to_video,
            text_features=texts.numpy(), video_features=videos.numpy())
        if all(record['captions'] is not None for record in results):
            arrays['captions'] = np.array([caption for record in results for caption in record['captions']])
        arrays |= {key: np.array(str(self.summary[key])) for key in _META if self.summary[key] is not None}
        Path(self.dump).parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # np.savez to a file prints its own traceback if it fails half-way, e.g. on a full disk
        np.savez(content, **arrays)
        with atomic_write(self.dump) as file:
            file.write(content.getbuffer())


def what_was_evaluated(metric: BaseMetric) -> str:
    """Describe the dataset, split, protocol, number of captions and gallery size of a metric's last evaluation.

    Args:
        metric (BaseMetric): Any metric.

    Returns:
        str: ``'msrvtt test, 1:1, 1000 captions, gallery of 1000 videos'``; empty if the metric has no summary.
    """
    summary = getattr(metric, 'summary', None)
    if not summary:
        return ''
    name = ' '.join(str(summary[key]) for key in ('dataset', 'split') if summary[key]) or 'unnamed dataset'
    protocol = f'{summary["protocol"]}, ' if summary['protocol'] else ''
    return f'{name}, {protocol}{summary["num_texts"]} captions, gallery of {summary["num_videos"]} videos'


def _record(sample: dict, cosine: bool) -> dict:
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
    return dict(video_id=video_id, video=video, texts=texts, mask=mask, twin=sample.get('twin'),
                kind=sample.get('kind'), captions=None if captions is None else list(captions))


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


def _twins(results: list[dict]) -> np.ndarray:
    """Return the column of each video's twin, [V] int64, or -1 if it has none or the twin is not in the gallery."""
    columns = {record['video_id']: i for i, record in enumerate(results)}
    return np.array([columns.get(record['twin'], -1) for record in results])
