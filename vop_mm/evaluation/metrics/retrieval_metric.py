"""Text-video retrieval over a whole split, as an MMEngine metric."""
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import nn

from vop_mm.registry import METRICS
from vop_mm.utils.files import atomic_write

from ..functional import check_postprocess, evaluate_retrieval, load_query_bank
from .gallery_metric import Gallery, GalleryMetric

_OPTIONS = dict(ties=('pessimistic', 'optimistic', 'mean'), v2t_protocol=('video', 'caption'))
_META = ('dataset', 'split', 'protocol')


@METRICS.register_module()
class RetrievalMetric(GalleryMetric):
    """Recalls and ranks in both directions, over all captions and unique videos.

    What it reads of the data samples is described in :class:`GalleryMetric`; ``unreadable`` samples are counted and
    reported.

    Keys of the result: ``t2v/R1``, ``t2v/R5``, ``t2v/R10``, ``t2v/R50``, ``t2v/Rsum``, ``t2v/MdR``, ``t2v/MnR``, and
    the same for ``v2t``; with post-processing, also ``t2v_dsl`` and so on; with a bootstrap, also ``t2v/R1_low``,
    ``t2v/R1_high`` and so on, the ends of 95% intervals. Recalls are percentages.

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
        **kwargs: ``collect_device``, ``collect_dir`` and ``prefix``; see :class:`GalleryMetric`.

    Attributes:
        summary (dict): Description of the last evaluation, in the main process: ``dataset, split, protocol`` (from the
            dataset's metainfo, or None), ``num_texts, num_videos, ties, v2t_protocol, left_out`` (sorted ids).

    Examples:
        >>> val_evaluator = dict(type='RetrievalMetric', dump='features.npz')
    """
    keys = ('captions', )

    def __init__(self,
                 ties: str = 'pessimistic',
                 v2t_protocol: str = 'video',
                 postprocess: Sequence[str] = (),
                 query_bank: str | Path | None = None,
                 bootstrap: int = 0,
                 dump: str | Path | None = None,
                 **kwargs) -> None:
        super().__init__(**kwargs)
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
        super().use_head(head)

    def compute(self, gallery: Gallery) -> dict[str, float]:
        self._report(gallery)
        if self.dump is not None:
            self._dump(gallery)
        bank = None if self.query_bank is None else load_query_bank(self.query_bank, gallery.texts, gallery.videos)
        rows = evaluate_retrieval(gallery.similarity, gallery.text_to_video, self.ties, self.v2t_protocol,
                                  self.postprocess, bank, self.bootstrap)
        return {f'{row}/{key}': value for row, values in rows for key, value in values.items()}

    def _report(self, gallery: Gallery) -> None:
        meta, left_out = self.dataset_meta or {}, gallery.left_out
        num_texts, num_videos = gallery.similarity.shape
        self.summary = dict(
            **{key: meta.get(key) for key in _META}, num_texts=num_texts, num_videos=num_videos,
            ties=self.ties, v2t_protocol=self.v2t_protocol, left_out=left_out)
        reading = 'the maximum over a video\'s captions' if self.v2t_protocol == 'video' else 'its best caption'
        print_log(f'Retrieval on {what_was_evaluated(self)}: ties {self.ties}, v2t by {reading}', logger='current')
        if left_out:
            print_log(f'{len(left_out)} of {len(left_out) + num_videos} videos are left out of these figures, with '
                      f'their captions: {", ".join(left_out)}', logger='current', level=logging.WARNING)

    def _dump(self, gallery: Gallery) -> None:
        arrays = dict(
            video_ids=np.array([record['video_id'] for record in gallery.records]),
            text_to_video=gallery.text_to_video, text_features=gallery.texts.numpy(),
            video_features=gallery.videos.numpy())
        captions = [record['captions'] for record in gallery.records]
        if None not in captions:
            arrays['captions'] = np.array([caption for some in captions for caption in some])
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
