"""Ranks and metrics of text-video retrieval.

Everything here takes a similarity matrix [num_texts, num_videos], higher is more similar, and reads it in blocks of
rows: what is needed beside the matrix stays at a few times 16 MB, so a memory-mapped file is as good as an array.
The two directions are functions of their own, because post-processing gives each direction its own matrix.

A rank is 1 + (number of strictly better) + share * (number of equal ones). Counting is all that is done, nothing is
sorted, so ties can't fall one way or the other by chance, and a query has exactly one rank. (The usual
``np.where(sorted - diagonal == 0)`` gives several ranks per tie, and a better score than is true.)
"""
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

_SHARE = dict(pessimistic=1., optimistic=0., mean=0.5)  # of the equal ones, how many rank before the true one
_V2T_PROTOCOLS = ('video', 'caption')
_RECALL_AT = (1, 5, 10, 50)
_BLOCK = 2**22  # elements that are looked at together

Array = np.ndarray | Tensor


def retrieval_metrics(similarity: Array,
                      text_to_video: Array | Sequence[int] | None = None,
                      ties: str = 'pessimistic',
                      v2t_protocol: str = 'video') -> dict[str, dict[str, float]]:
    """Recalls and ranks in both directions.

    Args:
        similarity (ndarray | Tensor): [num_texts, num_videos], float16 to float64 or integers, all finite. Compared
            as it is; a tensor stays on its device.
        text_to_video (ndarray | Tensor | Sequence[int], optional): Column of each text's video, [num_texts]; every
            video needs a text. None: the matrix is square, and text i belongs to video i.
        ties (str): ``'pessimistic'``: equal ones count as better; ``'optimistic'``: as worse; ``'mean'``: half of
            them. Defaults to ``'pessimistic'``.
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
    """Every query's rank in both directions.

    Args:
        similarity (ndarray | Tensor): As for :func:`retrieval_metrics`, and so are the other arguments.

    Returns:
        dict: ``'t2v'``: float64 [num_texts], a rank per row; ``'v2t'``: float64 [num_videos], a rank per column.
        Ranks start at 1.

    Raises:
        ValueError: As for :func:`retrieval_metrics`.
    """
    return dict(
        t2v=text_to_video_ranks(similarity, text_to_video, ties),
        v2t=video_to_text_ranks(similarity, text_to_video, ties, v2t_protocol))


def text_to_video_ranks(similarity: Array,
                        text_to_video: Array | Sequence[int] | None = None,
                        ties: str = 'pessimistic') -> np.ndarray:
    """The rank of each text's video among all videos.

    Args:
        similarity (ndarray | Tensor): As for :func:`retrieval_metrics`, and so are the other arguments.

    Returns:
        ndarray: Float64 [num_texts], from 1.

    Raises:
        ValueError: As for :func:`retrieval_metrics`.
    """
    share = _choose('ties', ties, _SHARE)
    rows = _Rows(similarity)
    video = rows.on_device(_check_text_to_video(text_to_video, rows.shape))
    own = rows.at(video)
    ranks = torch.empty_like(own, dtype=torch.float64)  # one piece: small ones would keep freed blocks from going back
    for start, stop in _bounds(rows.rows_per_block, rows.shape[0]):
        block, true = rows.block(slice(start, stop)), own[start:stop, None]
        better = torch.count_nonzero(block > true, dim=1)
        equal = torch.count_nonzero(block == true, dim=1) - 1  # without the true one itself
        ranks[start:stop] = 1 + better + share * equal.double()
    return ranks.cpu().numpy()


def video_to_text_ranks(similarity: Array,
                        text_to_video: Array | Sequence[int] | None = None,
                        ties: str = 'pessimistic',
                        protocol: str = 'video') -> np.ndarray:
    """The rank of each video's texts.

    With one text per video both protocols are the same. With several, the field reads "rank" in two ways:

    * ``'video'`` (CLIP4Clip, X-Pool): a video's score for another video's texts is the maximum over them; the rank is
      that of its own group of texts among the num_videos groups;
    * ``'caption'``: the rank of its best text among all num_texts texts; its other texts are no competitors.

    Args:
        similarity (ndarray | Tensor): As for :func:`retrieval_metrics`, and so are ``text_to_video`` and ``ties``.
        protocol (str): ``'video'`` or ``'caption'``. Defaults to ``'video'``.

    Returns:
        ndarray: Float64 [num_videos], from 1.

    Raises:
        ValueError: As for :func:`retrieval_metrics`.
    """
    share = _choose('ties', ties, _SHARE)
    _choose('v2t_protocol', protocol, _V2T_PROTOCOLS)
    rows = _Rows(similarity)
    text_to_video = _check_text_to_video(text_to_video, rows.shape)
    video = rows.on_device(text_to_video)
    own_texts = rows.at(video)
    own = own_texts.new_zeros(rows.shape[1]).scatter_reduce_(0, video, own_texts, 'amax', include_self=False)
    if protocol == 'video':
        competitors = _group_maxima(rows, text_to_video)
        itself = 1
    else:
        competitors = (rows.block(slice(*bounds)) for bounds in _bounds(rows.rows_per_block, rows.shape[0]))
        itself = torch.bincount(video[own_texts == own[video]], minlength=rows.shape[1])
    better, equal = torch.zeros_like(own, dtype=torch.int64), torch.zeros_like(own, dtype=torch.int64)
    for block in competitors:
        better += torch.count_nonzero(block > own, dim=0)
        equal += torch.count_nonzero(block == own, dim=0)
    return (1 + better + share * (equal - itself).double()).cpu().numpy()


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Metrics of a set of queries.

    Args:
        ranks (ndarray): [num_queries], from 1.

    Returns:
        dict: ``R1, R5, R10, R50`` (percent of queries whose rank is at most that), ``Rsum`` (R1 + R5 + R10), ``MdR``
        and ``MnR`` (median and mean rank).

    Raises:
        ValueError: No ranks.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or not ranks.size:
        raise ValueError(f'ranks must be [num_queries], at least one, got the shape {ranks.shape}')
    recalls = {k: 100. * int(np.count_nonzero(ranks <= k)) / len(ranks) for k in _RECALL_AT}
    return {
        **{f'R{k}': value for k, value in recalls.items()}, 'Rsum': recalls[1] + recalls[5] + recalls[10],
        'MdR': float(np.median(ranks)),
        'MnR': float(np.mean(ranks))
    }


def pair_accuracy(similarity: Array, text_to_video: Array | Sequence[int] | None,
                  twins: Array | Sequence[int]) -> float:
    """How often a caption scores its own video above that video's twin, which differs in nothing but what is said.

    For a clip and its reverse, 50 is what a method gets that can't see the order of frames.

    Args:
        similarity (ndarray | Tensor): [num_texts, num_videos], as for :func:`retrieval_metrics`.
        text_to_video (ndarray | Tensor | Sequence[int], optional): As for :func:`retrieval_metrics`.
        twins (ndarray | Tensor | Sequence[int]): Column of each video's twin, [num_videos], -1 where it has none.

    Returns:
        float: Percent of the captions of videos with a twin; equal scores count half.

    Raises:
        ValueError: As for :func:`retrieval_metrics`; and for twins out of range, a video that is its own twin, or no
            twins at all.
    """
    rows = _Rows(similarity)
    text_to_video = _check_text_to_video(text_to_video, rows.shape)
    twins = _check_indices('twins', twins, rows.shape[1], rows.shape[1], lowest=-1)
    if (twins == np.arange(len(twins))).any():
        raise ValueError(f'video {int(np.flatnonzero(twins == np.arange(len(twins)))[0])} is its own twin')
    twin_of_text = twins[text_to_video]
    texts = np.flatnonzero(twin_of_text >= 0)
    if not len(texts):
        raise ValueError('no video has a twin')
    own = rows.at(rows.on_device(text_to_video[texts]), rows.on_device(texts))
    other = rows.at(rows.on_device(twin_of_text[texts]), rows.on_device(texts))
    wins, draws = torch.count_nonzero(own > other).item(), torch.count_nonzero(own == other).item()
    return 100. * (wins + 0.5 * draws) / len(texts)


def similarity_matrix(text_features: Array, video_features: Array) -> Tensor:
    """Dot products, rounded once.

    Sums are taken in float64 and rounded to float32: how a BLAS library splits them (which differs with the number of
    threads, and between the rows of one matrix) is then lost in the rounding. Equal captions get equal scores, and a
    rank does not change with the machine's mood.

    Args:
        text_features (ndarray | Tensor): [num_texts, D].
        video_features (ndarray | Tensor): [num_videos, D], on the same device.

    Returns:
        Tensor: Float32 [num_texts, num_videos].

    Raises:
        ValueError: Shapes that don't go together.
    """
    texts, videos = torch.as_tensor(text_features).detach(), torch.as_tensor(video_features).detach()
    if texts.ndim != 2 or videos.ndim != 2 or texts.shape[1] != videos.shape[1]:
        raise ValueError('features must be [num_texts, D] and [num_videos, D], '
                         f'got {tuple(texts.shape)} and {tuple(videos.shape)}')
    videos = videos.double().T
    similarity = torch.empty(len(texts), videos.shape[1], dtype=torch.float32, device=texts.device)
    for start, stop in _bounds(max(1, _BLOCK // max(1, videos.shape[1])), len(texts)):
        similarity[start:stop] = texts[start:stop].double() @ videos
    return similarity


class _Rows:
    """Blocks of rows of a similarity matrix, as float tensors that are known to be finite."""

    def __init__(self, similarity: Array) -> None:
        if not isinstance(similarity, Tensor):
            similarity = np.asarray(similarity)
        if similarity.ndim != 2 or 0 in similarity.shape:
            raise ValueError('similarity must be [num_texts, num_videos], neither of them 0, '
                             f'got the shape {tuple(similarity.shape)}')
        self._source = similarity.detach() if isinstance(similarity, Tensor) else similarity
        self._dtype = _dtype_to_compare(similarity)
        self.shape = tuple(similarity.shape)
        self.rows_per_block = max(1, _BLOCK // self.shape[1])

    def on_device(self, indices: np.ndarray) -> Tensor:
        """Indices [n] as a tensor where the matrix is."""
        return torch.as_tensor(indices, device=self._source.device if isinstance(self._source, Tensor) else None)

    def block(self, rows: slice | np.ndarray) -> Tensor:
        """Some rows, [n, num_videos]."""
        block = self._read(rows)
        # one sum is much quicker than a look at every element, and not finite if any of them isn't
        if not torch.isfinite(block.sum()):
            self._check_finite(block, rows)
        return block

    def at(self, columns: Tensor, rows: Tensor | None = None) -> Tensor:
        """One element of each row, [n]."""
        if rows is None:
            rows = torch.arange(self.shape[0], device=columns.device)
        values = self._read((rows, columns) if isinstance(self._source, Tensor) else (rows.numpy(), columns.numpy()))
        if not torch.isfinite(values).all():
            i = int(torch.isfinite(values).logical_not().nonzero()[0])
            raise _not_finite(rows[i], columns[i], values[i])
        return values

    def _read(self, index) -> Tensor:
        if isinstance(self._source, Tensor):
            return self._source[index].to(self._dtype)
        # a copy: the source may be read-only, of another byte order, or a file
        return torch.from_numpy(np.array(self._source[index], dtype=self._dtype))

    def _check_finite(self, block: Tensor, rows: slice | np.ndarray) -> None:
        wrong = torch.isfinite(block).logical_not().nonzero()
        if len(wrong):  # else the sum was too large, and nothing is wrong
            row, column = wrong[0].tolist()
            name = rows.start + row if isinstance(rows, slice) else rows[row]
            raise _not_finite(name, column, block[row, column])


def _not_finite(row, column, value) -> ValueError:
    return ValueError(f'similarity is not finite at text {int(row)}, video {int(column)}: {float(value)}')


def _dtype_to_compare(similarity: Array):
    """The matrix's own type where it can be compared quickly, else one that holds its values exactly."""
    if isinstance(similarity, Tensor):
        if similarity.is_floating_point():
            return similarity.dtype if similarity.dtype in (torch.float32, torch.float64) else torch.float32
        good, dtype = not similarity.is_complex() and similarity.dtype != torch.bool, torch.float64
    else:
        kind, size = similarity.dtype.kind, similarity.dtype.itemsize
        good = kind in 'iu' or (kind == 'f' and size <= 8)
        dtype = np.dtype(np.float32 if kind == 'f' and size <= 4 else np.float64)
    if not good:
        raise ValueError(f'similarity must be float16 to float64 or integers, got {similarity.dtype}')
    return dtype


def _group_maxima(rows: _Rows, text_to_video: np.ndarray) -> Iterator[Tensor]:
    """For blocks of videos the maximum over each one's texts, [n, num_videos]."""
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


def _bounds(step: int, total: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, total)) for start in range(0, total, step))


def _choose(name: str, value: str, choices):
    if value not in choices:
        raise ValueError(f'{name} must be one of {", ".join(map(repr, choices))}, got {value!r}')
    return choices[value] if isinstance(choices, dict) else value


def _check_text_to_video(text_to_video: Array | Sequence[int] | None, shape: tuple[int, int]) -> np.ndarray:
    """As int64 [num_texts], every video at least once."""
    num_texts, num_videos = shape
    if text_to_video is None:
        if num_texts != num_videos:
            raise ValueError(f'similarity has {num_texts} texts and {num_videos} videos: text_to_video must say which '
                             'text belongs to which video')
        return np.arange(num_texts)
    indices = _check_indices('text_to_video', text_to_video, num_texts, num_videos, lowest=0)
    without = np.flatnonzero(np.bincount(indices, minlength=num_videos) == 0)
    if len(without):
        shown = ', '.join(map(str, without[:3])) + (', ...' if len(without) > 3 else '')
        raise ValueError(f'{len(without)} of {num_videos} videos have no text: {shown}')
    return indices


def _check_indices(name: str, indices: Array | Sequence[int], length: int, num_videos: int, lowest: int) -> np.ndarray:
    indices = indices.detach().cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    if indices.shape != (length,) or indices.dtype.kind not in 'iu':
        raise ValueError(f'{name} must be {length} integers, got {indices.dtype} of the shape {indices.shape}')
    wrong = np.flatnonzero((indices < lowest) | (indices >= num_videos))
    if len(wrong):
        raise ValueError(f'{name}[{wrong[0]}] is {indices[wrong[0]]}, and there are {num_videos} videos')
    return indices.astype(np.int64)
