"""Confidence intervals of retrieval metrics over queries."""
from collections.abc import Sequence

import numpy as np

from .retrieval import RECALL_AT

_LEVEL = 95.  # percent
_ELEMENTS = 2**22  # number of elements processed together


def bootstrap_intervals(ranks: np.ndarray, groups: np.ndarray | Sequence[int] | None = None, samples: int = 1000,
                        seed: int = 0) -> dict[str, tuple[float, float]]:
    """Compute 95% percentile bootstrap intervals of all metrics of a set of queries.

    Ranks are resampled, not the matrix: the gallery stays the same. Captions of one video are hard or easy together.
    If a video has several, videos are therefore drawn with all their captions: drawing single captions would treat
    them as independent and give intervals that are too narrow.

    Args:
        ranks (ndarray): [num_queries], from 1.
        groups (ndarray | Sequence[int], optional): Group of each query, [num_queries] from 0 without gaps; queries of a
            group are drawn together (the group is the text's video). None: every query is its own group.
        samples (int): Number of bootstrap samples, each of as many groups as there are, with replacement. Defaults to
            1000.
        seed (int): Random seed. Defaults to 0.

    Returns:
        dict: ``(low, high)`` for each metric of :func:`.retrieval.rank_metrics`.

    Raises:
        ValueError: No ranks, groups of a different length, or no samples.
    """
    ranks = np.asarray(ranks, np.float64)
    groups = np.arange(len(ranks)) if groups is None else np.asarray(groups)
    if ranks.ndim != 1 or not ranks.size or groups.shape != ranks.shape:
        raise ValueError(f'ranks and groups must be [num_queries], at least one, got {ranks.shape} and {groups.shape}')
    if samples < 1:
        raise ValueError(f'samples must be at least 1, got {samples}')
    order = np.argsort(ranks)
    ranks, groups = ranks[order], groups[order]
    num_groups = int(groups.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _ELEMENTS // len(ranks))
    parts = []
    for start in range(0, samples, step):
        size = min(step, samples - start)
        drawn = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size)  # [n, num_groups]
        parts.append(_metrics(ranks, drawn[:, groups]))
    values = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    tail = (100 - _LEVEL) / 2
    return {key: tuple(np.percentile(value, [tail, 100 - tail]).tolist()) for key, value in values.items()}


def _metrics(ranks: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """Compute metrics [n] of sorted ranks [num_queries], given how often each occurs [n, num_queries]."""
    until = np.cumsum(times, axis=1)  # number of queries up to this rank
    total = until[:, -1]
    last = {k: np.searchsorted(ranks, k, side='right') for k in RECALL_AT}
    recall = {k: 100. * (until[:, i - 1] if i else np.zeros_like(total)) / total for k, i in last.items()}
    # the middle rank, or the two middle ranks
    low, high = (ranks[(until > at[:, None]).argmax(axis=1)] for at in ((total - 1) // 2, total // 2))
    return {
        **{f'R{k}': value for k, value in recall.items()}, 'Rsum': recall[1] + recall[5] + recall[10],
        'MdR': (low + high) / 2,
        'MnR': times @ ranks / total
    }
