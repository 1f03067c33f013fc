"""Post-processing of similarities against hubs: videos (or captions) that are close to everything.

Each function takes the plain similarities and a direction, and returns the similarities for the ranks of that
direction. In ``'t2v'``, captions are queries and videos the gallery, and scores are made comparable between the videos
of a row; in ``'v2t'``, between the captions of a column. The two matrices are never the same: a prior over the wrong
axis multiplies all scores of one query by the same number, and reorders nothing.

Nothing as large as the matrix is allocated: results are computed as they are read (:class:`.blocks.ChangedRows`), and
rank the items of a query in the same order as the formula does. Sums of exponentials are kept as logarithms and rounded
to 1e-6, so that equal scores stay equal regardless of the order of summation.
"""
import torch
from torch import Tensor

from .blocks import Array, ChangedRows, Rows, as_rows, blocks

# Values of the publications, for cosines. They are fixed: values chosen on a test split would be tuned on it.
_CLIP_SCALE = 100.  # logit scale of CLIP's published weights, and the maximum in CLIP's training
_BANK_SCALE = 20.  # inverse temperature of QB-Norm's dynamic inverted softmax
_DIRECTIONS = ('t2v', 'v2t')


def dual_softmax(similarity: Array | Rows, direction: str, scale: float = _CLIP_SCALE) -> ChangedRows:
    """Multiply similarities by their softmax over the queries (Cheng et al., arXiv 2109.04290, as used in evaluation).

    ``s[t, v] * softmax_t(scale * s)[t, v]`` for t2v, and ``s[t, v] * softmax_v(scale * s)[t, v]`` for v2t. It uses all
    queries of the split at once.

    Args:
        similarity (ndarray | Tensor | MatrixRows): Cosines [num_texts, num_videos].
        direction (str): ``'t2v'`` or ``'v2t'``.
        scale (float): Inverse temperature of the softmax. Defaults to 100.

    Returns:
        ChangedRows: [num_texts, num_videos], for the ranks of this direction.

    Raises:
        ValueError: Unknown direction.
    """
    rows = as_rows(similarity)
    if _check(direction) == 't2v':
        mass = _mass_of_columns(rows, scale)  # [V]
        return ChangedRows(rows, lambda values, text, video: values * torch.exp(scale * values - mass[video]))
    mass = _mass_of_rows(rows, scale)  # [T]
    return ChangedRows(rows, lambda values, text, video: values * torch.exp(scale * values - mass[text]))


def sinkhorn(similarity: Array | Rows, direction: str, scale: float = _CLIP_SCALE,
             iterations: int = 10) -> ChangedRows:
    """Turn similarities into a transport plan between captions and videos (Yakovlev et al., arXiv 2311.08143).

    ``exp(scale * s)`` is scaled until all rows have the same sum and all columns have the same sum (Sinkhorn's
    algorithm with uniform marginals: the number of captions per video is not used, since it would leak answers). t2v
    is ranked after scaling columns, v2t after scaling rows. It uses all queries of the split at once.

    Args:
        similarity (ndarray | Tensor | MatrixRows): Cosines [num_texts, num_videos].
        direction (str): ``'t2v'`` or ``'v2t'``.
        scale (float): Inverse temperature. Defaults to 100.
        iterations (int): Number of times that rows and then columns are scaled. Defaults to 10.

    Returns:
        ChangedRows: [num_texts, num_videos], for the ranks of this direction: the logarithm of the plan, without terms
        that are constant within a query.

    Raises:
        ValueError: Unknown direction.
    """
    _check(direction)
    rows = as_rows(similarity)
    num_texts, num_videos = rows.shape
    potential = torch.zeros(num_videos, dtype=torch.float64, device=rows.on_device([0]).device)  # [V], of columns
    for _ in range(iterations):
        mass = torch.zeros_like(potential)
        for block in blocks(rows):
            mass += torch.softmax(scale * block.double() + potential, dim=1).sum(0)  # [n, V] -> [V]
        potential -= torch.log(mass * num_videos / num_texts)
    potential = potential.round(decimals=6)
    if direction == 't2v':
        return ChangedRows(rows, lambda values, text, video: scale * values + potential[video])
    mass = _mass_of_rows(rows, scale, potential)  # [T]
    return ChangedRows(rows, lambda values, text, video: scale * values - mass[text])


def qb_norm(similarity: Array | Rows, bank: Array | Rows, direction: str, scale: float = _BANK_SCALE,
            k: int = 1) -> ChangedRows:
    """Apply querybank normalization with the dynamic inverted softmax (Bogolin et al., CVPR 2022, arXiv 2112.12777).

    ``exp(scale * s[q, g]) / sum_b exp(scale * bank[b, g])`` for queries q whose best gallery item is among the k best
    items of any bank query b; other queries keep their similarities. It uses one test query at a time and the bank,
    which comes from the training split.

    Args:
        similarity (ndarray | Tensor | MatrixRows): Cosines [num_texts, num_videos].
        bank (ndarray | Tensor | FeatureRows): Cosines of the bank's queries with the gallery: [num_bank, num_videos] of
            training captions for t2v, [num_bank, num_texts] of training videos for v2t.
        direction (str): ``'t2v'`` or ``'v2t'``.
        scale (float): Inverse temperature, beta in the paper. Defaults to 20.
        k (int): Number of best items per bank query that form the activation set. Defaults to 1.

    Returns:
        ChangedRows: [num_texts, num_videos], for the ranks of this direction; logarithms for normalized queries.

    Raises:
        ValueError: Unknown direction, or a bank that is empty or of another gallery.
    """
    rows, bank = as_rows(similarity), as_rows(bank)
    gallery = rows.shape[1 if _check(direction) == 't2v' else 0]
    if bank.shape[1] != gallery or not bank.shape[0]:
        raise ValueError(f'the query bank for {direction} must be [num_queries, {gallery}], got {tuple(bank.shape)}')
    mass = _mass_of_columns(bank, scale)  # [gallery]
    hubs = torch.zeros_like(mass, dtype=torch.bool)  # the activation set
    for block in blocks(bank):
        hubs |= (block >= block.topk(min(k, gallery), dim=1).values[:, -1:]).any(0)
    if direction == 't2v':
        normalized = torch.cat([block[:, hubs].amax(1) == block.amax(1) for block in blocks(rows)])  # [T]
        return ChangedRows(rows, lambda values, text, video: torch.where(
            normalized[text], scale * values - mass[video], values))
    best, best_hub = (torch.full((rows.shape[1],), -torch.inf, dtype=mass.dtype, device=mass.device) for _ in range(2))
    for block, hub in zip(blocks(rows), hubs.split(rows.rows_per_block), strict=True):
        best = torch.maximum(best, block.amax(0))
        if hub.any():
            best_hub = torch.maximum(best_hub, block[hub].amax(0))
    normalized = best_hub == best  # [V]
    return ChangedRows(rows, lambda values, text, video: torch.where(
        normalized[video], scale * values - mass[text], values))


def _mass_of_columns(rows: Rows, scale: float) -> Tensor:
    """Compute the log-sum-exp of each column, [num_videos]."""
    mass = None
    for block in blocks(rows):
        part = torch.logsumexp(scale * block.double(), dim=0)
        mass = part if mass is None else torch.logaddexp(mass, part)
    return mass.round(decimals=6)


def _mass_of_rows(rows: Rows, scale: float, potential: Tensor | float = 0.) -> Tensor:
    """Compute the log-sum-exp of each row, including the columns' potentials, [num_texts]."""
    return torch.cat([torch.logsumexp(scale * block.double() + potential, dim=1)
                      for block in blocks(rows)]).round(decimals=6)


def _check(direction: str) -> str:
    if direction not in _DIRECTIONS:
        raise ValueError(f'direction must be one of {", ".join(map(repr, _DIRECTIONS))}, got {direction!r}')
    return direction
