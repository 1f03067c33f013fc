"""Complete evaluation: both directions, plain and post-processed, with confidence intervals."""
from collections.abc import Iterator, Sequence

import numpy as np

from .blocks import Array, Rows, as_rows, blocks
from .bootstrap import bootstrap_intervals
from .postprocessing import dual_softmax, qb_norm, sinkhorn
from .retrieval import rank_metrics, text_to_video_ranks, video_to_text_ranks

POSTPROCESSING = ('dsl', 'sinkhorn', 'qbnorm')
_LARGEST_COSINE = 1.01  # upper limit for cosines of half-precision features


def evaluate_retrieval(similarity: Array,
                       text_to_video: np.ndarray | Sequence[int] | None = None,
                       ties: str = 'pessimistic',
                       v2t_protocol: str = 'video',
                       postprocess: Sequence[str] = (),
                       query_bank: dict[str, Array | Rows] | None = None,
                       bootstrap: int = 0,
                       seed: int = 0) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the metrics of a complete evaluation, row by row.

    Args:
        similarity (ndarray | Tensor): [num_texts, num_videos], as in :func:`.retrieval.retrieval_metrics`.
            Post-processing requires cosines.
        text_to_video (ndarray | Sequence[int], optional): As in :func:`.retrieval.retrieval_metrics`.
        ties (str): As in :func:`.retrieval.retrieval_metrics`.
        v2t_protocol (str): As in :func:`.retrieval.retrieval_metrics`.
        postprocess (Sequence[str]): Any of ``'dsl'`` (:func:`.postprocessing.dual_softmax`), ``'sinkhorn'`` and
            ``'qbnorm'`` (:func:`.postprocessing.qb_norm`). Each gets its own rows.
        query_bank (dict, optional): Query banks for ``'qbnorm'``, under ``'t2v'`` and ``'v2t'``; a direction without a
            bank gets no row.
        bootstrap (int): Number of samples for confidence intervals (:func:`.bootstrap.bootstrap_intervals`); 0: none.
        seed (int): Random seed of the bootstrap. Defaults to 0.

    Yields:
        tuple[str, dict]: ``'t2v'``, ``'v2t'``, then ``'t2v_dsl'`` and so on, with the metrics of
        :func:`.retrieval.rank_metrics` and, if requested, their intervals under ``'R1_low'``, ``'R1_high'`` ...

    Raises:
        ValueError: As in :func:`.retrieval.retrieval_metrics`; or for unknown names, ``'qbnorm'`` without a bank, or
            post-processing of similarities that are not cosines.
    """
    check_postprocess(postprocess, bool(query_bank))
    if postprocess:
        _check_cosines(similarity)
    for name in ('', *postprocess):
        for direction in ('t2v', 'v2t'):
            matrix = similarity
            if name == 'qbnorm':
                if direction not in query_bank:
                    continue
                matrix = qb_norm(similarity, query_bank[direction], direction)
            elif name:
                matrix = dict(dsl=dual_softmax, sinkhorn=sinkhorn)[name](similarity, direction)
            if direction == 't2v':
                ranks, groups = text_to_video_ranks(matrix, text_to_video, ties), text_to_video
            else:
                ranks, groups = video_to_text_ranks(matrix, text_to_video, ties, v2t_protocol), None
            values = rank_metrics(ranks)
            if bootstrap:
                for key, (low, high) in bootstrap_intervals(ranks, groups, bootstrap, seed).items():
                    values[f'{key}_low'], values[f'{key}_high'] = low, high
            yield f'{direction}_{name}' if name else direction, values


def _check_cosines(similarity: Array) -> None:
    # cosines times 100, which many codebases save, would silently be post-processed at a hundredth of the temperature
    for block in blocks(as_rows(similarity)):
        largest = float(block.abs().max())
        if largest > _LARGEST_COSINE:
            raise ValueError(f'similarities up to {largest:.3g} are not cosines, as post-processing requires: '
                             'divide them by the logit scale, or embeddings by their length')


def check_postprocess(names: Sequence[str], has_bank: bool) -> None:
    """Raise an error for invalid post-processing options before anything is computed.

    Args:
        names (Sequence[str]): Names of post-processing methods.
        has_bank (bool): Whether there is a query bank.

    Raises:
        ValueError: An unknown name, or only one of ``'qbnorm'`` and a bank.
    """
    unknown = [name for name in names if name not in POSTPROCESSING]
    if unknown:
        raise ValueError(f'postprocess must be of {", ".join(POSTPROCESSING)}, got {unknown[0]!r}')
    if ('qbnorm' in names) != has_bank:
        raise ValueError('qbnorm needs a query bank of the training split' if 'qbnorm' in names else
                         'a query bank is only used by qbnorm, which was not requested')
