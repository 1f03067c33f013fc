"""Ranks and metrics of text-video retrieval.

All functions take a similarity matrix [num_texts, num_videos], where higher means more similar, and read it in blocks
of rows (:mod:`.blocks`): memory use beyond the matrix stays small, so a memory-mapped file works as well as an array.
The two directions are separate functions because post-processing gives each direction its own matrix.

A rank is 1 + (number of strictly better items) + share * (number of equal ones). Items are counted, not sorted, so
ties are not broken by chance, and a query has exactly one rank. (The usual ``np.where(sorted - diagonal == 0)`` gives
several ranks per tie, and a score that is too good.)
"""
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .blocks import Array, Rows, as_rows, blocks, bounds

_SHARE = dict(pessimistic=1., optimistic=0., mean=0.5)  # share of the equal items that rank before the true one
_V2T_PROTOCOLS = ('video', 'caption')
RECALL_AT = (1, 5, 10, 50)


def retrieval_metrics(similarity: Array,
                      text_to_video: Array | Sequence[int] | None = None,
                      ties: str = 'pessimistic',
                      v2t_protocol: str = 'video') -> dict[str, dict[str, float]]:
    """Compute recalls and ranks in both directions.

    Args:
        similarity (ndarray | Tensor): [num_texts, num_videos], float16 to float64 or integers, all finite. Values
            are compared exactly; a tensor stays on its device.
        text_to_video (ndarray | Tensor | Sequence[int], optional): Column of each text's video, [num_texts]; every
            video needs a text. None: the matrix is square, and text i belongs to video i.
        ties (str): ``'pessimistic'``: equal items count as better; ``'optimistic'``: as worse; ``'mean'``: half of
            them as better. Defaults to ``'pessimistic'``.
        v2t_protocol (str): See :func:`video_to_text_ranks`. Defaults to ``'video'``.

    Returns:
        dict: ``{'t2v': metrics, 'v2t': metrics}`` with the metrics of :func:`rank_metrics`.

    Raises:
        ValueError: Wrong shape, type or index, an unknown option, or a similarity that is not finite (the message
            names its row and column).

    Examples:
        >>> metrics = retrieval_metrics(np.array([[.9, .1], [.8, .3]]))
        >>> metrics['t2v']['R1'], metrics['v2t']['R1'], metrics['t2v']['MnR']
        (50.0, 100.0, 1.5)
    """
    ranks = retrieval_ranks(similarity, text_to_video, ties, v2t_protocol)
    return {direction: rank_metrics(values) for direction, values in ranks.items()}


def retrieval_ranks(similarity: Array,
                    text_to_video: Array | Sequence[int] | None = None,
                    ties: str = 'pessimistic',
                    v2t_protocol: str = 'video') -> dict[str, np.ndarray]:
    """Compute the rank of every query in both directions.

    Args:
        similarity (ndarray | Tensor): As in :func:`retrieval_metrics`.
        text_to_video (ndarray | Tensor | Sequence[int], optional): As in :func:`retrieval_metrics`.
        ties (str): As in :func:`retrieval_metrics`.
        v2t_protocol (str): As in :func:`retrieval_metrics`.

    Returns:
        dict: ``'t2v'``: float64 [num_texts], a rank per row; ``'v2t'``: float64 [num_videos], a rank per column.
        Ranks start at 1.

    Raises:
        ValueError: As in :func:`retrieval_metrics`.
    """
    return dict(
        t2v=text_to_video_ranks(similarity, text_to_video, ties),
        v2t=video_to_text_ranks(similarity, text_to_video, ties, v2t_protocol))


def text_to_video_ranks(similarity: Array,
                        text_to_video: Array | Sequence[int] | None = None,
                        ties: str = 'pessimistic') -> np.ndarray:
    """Compute the rank of each text's video among all videos.

    Args:
        similarity (ndarray | Tensor): As in :func:`retrieval_metrics`.
        text_to_video (ndarray | Tensor | Sequence[int], optional): As in :func:`retrieval_metrics`.
        ties (str): As in :func:`retrieval_metrics`.

    Returns:
        ndarray: Float64 [num_texts], from 1.

    Raises:
        ValueError: As in :func:`retrieval_metrics`.
    """
    share = _choose('ties', ties, _SHARE)
    rows = as_rows(similarity)
    video = rows.on_device(_check_text_to_video(text_to_video, rows.shape))
    own = rows.at(video)
    ranks = torch.empty_like(own, dtype=torch.float64)  # one allocation: small ones would keep freed blocks alive
    for start, stop in bounds(rows.rows_per_block, rows.shape[0]):
        block, true = rows.block(slice(start, stop)), own[start:stop, None]
        better = torch.count_nonzero(block > true, dim=1)
        equal = torch.count_nonzero(block == true, dim=1) - 1  # excluding the true one itself
        ranks[start:stop] = 1 + better + share * equal.double()
    return ranks.cpu().numpy()


def video_to_text_ranks(similarity: Array,
                        text_to_video: Array | Sequence[int] | None = None,
                        ties: str = 'pessimistic',
                        protocol: str = 'video') -> np.ndarray:
    """Compute the rank of each video's texts.

    With one text per video, both protocols are the same. With several, "rank" has two meanings in the field:

    * ``'video'`` (CLIP4Clip, X-Pool): a video's score for another video's texts is the maximum over them; the rank is
      that of its own group of texts among the num_videos groups;
    * ``'caption'``: the rank of its best text among all num_texts texts; its other texts do not compete.

    Args:
        similarity (ndarray | Tensor): As in :func:`retrieval_metrics`.
        text_to_video (ndarray | Tensor | Sequence[int], optional): As in :func:`retrieval_metrics`.
        ties (str): As in :func:`retrieval_metrics`.
        protocol (str): ``'video'`` or ``'caption'``. Defaults to ``'video'``.

    Returns:
        ndarray: Float64 [num_videos], from 1.

    Raises:
        ValueError: As in :func:`retrieval_metrics`.
    """
    share = _choose('ties', ties, _SHARE)
    _choose('v2t_protocol', protocol, _V2T_PROTOCOLS)
    rows = as_rows(similarity)
    text_to_video = _check_text_to_video(text_to_video, rows.shape)
    video = rows.on_device(text_to_video)
    own_texts = rows.at(video)
    own = own_texts.new_zeros(rows.shape[1]).scatter_reduce_(0, video, own_texts, 'amax', include_self=False)
    if protocol == 'video':
        competitors = _group_maxima(rows, text_to_video)
        itself = 1
    else:
        competitors = blocks(rows)
        itself = torch.bincount(video[own_texts == own[video]], minlength=rows.shape[1])
    better, equal = torch.zeros_like(own, dtype=torch.int64), torch.zeros_like(own, dtype=torch.int64)
    for block in competitors:
        better += torch.count_nonzero(block > own, dim=0)
        equal += torch.count_nonzero(block == own, dim=0)
    return (1 + better + share * (equal - itself).double()).cpu().numpy()


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Compute the metrics of a set of queries.

    Args:
        ranks (ndarray): [num_queries], from 1.

    Returns:
        dict: ``R1, R5, R10, R50`` (percentage of queries with at most this rank), ``Rsum`` (R1 + R5 + R10), ``MdR``
        and ``MnR`` (median and mean rank).

    Raises:
        ValueError: No ranks.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or not ranks.size:
        raise ValueError(f'ranks must be [num_queries], at least one, got the shape {ranks.shape}')
    recalls = {k: 100. * int(np.count_nonzero(ranks <= k)) / len(ranks) for k in RECALL_AT}
    return {
        **{f'R{k}': value for k, value in recalls.items()}, 'Rsum': recalls[1] + recalls[5] + recalls[10],
        'MdR': float(np.median(ranks)),
        'MnR': float(np.mean(ranks))
    }


def _group_maxima(rows: Rows, text_to_video: np.ndarray) -> Iterator[Tensor]:
    """Yield blocks of the maximum over each video's texts, [n, num_videos]."""
    order = np.argsort(text_to_video, kind='stable')
    in_order = bool((order[:-1] < order[1:]).all())
    counts = np.bincount(text_to_video)
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        start = ends[first] - counts[first]
        # whole groups, at least one
        last = max(first + 1, int(np.searchsorted(ends, start + rows.rows_per_block, side='right')))
        stop = ends[last - 1]
        block = rows.block(slice(int(start), int(stop)) if in_order else order[start:stop])
        if stop - start > last - first:
            block = torch.stack([group.amax(0) for group in block.split(counts[first:last].tolist())])
        yield block
        first = last


def _choose(name: str, value: str, choices):
    if value not in choices:
        raise ValueError(f'{name} must be one of {", ".join(map(repr, choices))}, got {value!r}')
    return choices[value] if isinstance(choices, dict) else value


def _check_text_to_video(text_to_video: Array | Sequence[int] | None, shape: tuple[int, int]) -> np.ndarray:
    """Validate the indices and return them as int64 [num_texts], with every video at least once."""
    num_texts, num_videos = shape
    if text_to_video is None:
        if num_texts != num_videos:
            raise ValueError(f'similarity has {num_texts} texts and {num_videos} videos: text_to_video must say which '
                             'text belongs to which video')
        return np.arange(num_texts)
    indices = (text_to_video.detach().cpu().numpy() if isinstance(text_to_video, Tensor) else
               np.asarray(text_to_video))
    if indices.shape != (num_texts,) or indices.dtype.kind not in 'iu':
        raise ValueError(f'text_to_video must be {num_texts} integers, got {indices.dtype} of the shape '
                         f'{indices.shape}')
    wrong = np.flatnonzero((indices < 0) | (indices >= num_videos))
    if len(wrong):
        raise ValueError(f'text_to_video[{wrong[0]}] is {indices[wrong[0]]}, and there are {num_videos} videos')
    without = np.flatnonzero(np.bincount(indices, minlength=num_videos) == 0)
    if len(without):
        shown = ', '.join(map(str, without[:3])) + (', ...' if len(without) > 3 else '')
        raise ValueError(f'{len(without)} of {num_videos} videos have no text: {shown}')
    return indices.astype(np.int64)
