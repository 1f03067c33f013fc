"""Block-wise access to the rows of a similarity matrix.

A block holds a few million elements, regardless of the source: an array, a tensor, a memory-mapped file, or features
whose products are computed on demand. Memory use beyond the source stays at a few times 16 MB.
"""
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

_BLOCK = 2**21  # number of elements processed together
_HEAD_BLOCK = 2**24  # number of elements that a head may compute for one batch of pairs

Array = np.ndarray | Tensor


def as_rows(similarity: 'Array | Rows') -> 'Rows':
    """Wrap a matrix so that it can be read by rows; return row readers unchanged."""
    return similarity if isinstance(similarity, Rows) else MatrixRows(similarity)


def blocks(rows: 'Rows') -> Iterator[Tensor]:
    """Yield all rows in order, in blocks [n, num_videos]."""
    for start, stop in bounds(rows.rows_per_block, rows.shape[0]):
        yield rows.block(slice(start, stop))


def bounds(step: int, total: int) -> Iterator[tuple[int, int]]:
    """Return ``(start, stop)`` of consecutive pieces."""
    return ((start, min(start + step, total)) for start in range(0, total, step))


def similarity_matrix(text_features: Array, video_features: Array, head: nn.Module | None = None,
                      frame_mask: Tensor | None = None) -> Tensor:
    """Compute the similarity matrix: dot products, rounded once, or the scores of a head.

    Sums are computed in float64 and rounded to float32. The rounding hides how a BLAS library splits a sum, which
    depends on the number of threads and differs between the rows of one matrix. Equal captions therefore get equal
    scores, and ranks are the same on every machine.

    Args:
        text_features (ndarray | Tensor): [num_texts, D]; with a head, the features that it keeps, [num_texts, ...].
        video_features (ndarray | Tensor): [num_videos, D], on the same device; with a head, [num_videos, ...].
        head (SimilarityHead, optional): Head that scores the features instead of the dot product; see
            :class:`HeadRows`.
        frame_mask (Tensor, optional): Frame mask for the head, [num_videos, F] bool.

    Returns:
        Tensor: Float32 [num_texts, num_videos].

    Raises:
        ValueError: The shapes don't match, or a feature is not finite (the message names its row).
    """
    products = (FeatureRows(text_features, video_features) if head is None else
                HeadRows(head, text_features, video_features, frame_mask))
    similarity = torch.empty(products.shape, dtype=torch.float32, device=products.device)
    for start, stop in bounds(products.rows_per_block, len(similarity)):
        similarity[start:stop] = products.block(slice(start, stop))
    return similarity


class FeatureRows:
    """Rows of the similarity matrix of two sets of features, computed block by block.

    Args:
        text_features (ndarray | Tensor): [num_texts, D], the rows.
        video_features (ndarray | Tensor): [num_videos, D], on the same device.

    Raises:
        ValueError: As in :func:`similarity_matrix`.
    """

    def __init__(self, text_features: Array, video_features: Array) -> None:
        texts, videos = torch.as_tensor(text_features).detach(), torch.as_tensor(video_features).detach()
        if texts.ndim != 2 or videos.ndim != 2 or texts.shape[1] != videos.shape[1]:
            raise ValueError('features must be [num_texts, D] and [num_videos, D], '
                             f'got {tuple(texts.shape)} and {tuple(videos.shape)}')
        _check_finite(texts, videos)
        self._texts, self._videos = texts, videos.double().T  # [T, D], [D, V]
        self.device = texts.device
        self.shape = (len(texts), len(videos))
        self.rows_per_block = max(1, _BLOCK // max(1, len(videos)))

    def block(self, rows: slice) -> Tensor:
        """Return some rows, float32 [n, num_videos]."""
        return (self._texts[rows].double() @ self._videos).float()


class HeadRows:
    """Rows of a head's similarity matrix, computed block by block.

    Scores are computed on the head's device, a few thousand pairs at a time.

    Args:
        head (SimilarityHead): The head.
        texts (Tensor): Features that it keeps of texts, [num_texts, ...], the rows.
        videos (Tensor): Features that it keeps of videos, [num_videos, ...].
        frame_mask (Tensor, optional): [num_videos, F] bool, False where a frame is padding.

    Raises:
        ValueError: A feature is not finite (the message names its row).
    """

    def __init__(self, head: nn.Module, texts: Tensor, videos: Tensor, frame_mask: Tensor | None = None) -> None:
        _check_finite(texts, videos)
        self._head, self._texts, self._videos, self._mask = head, texts, videos, frame_mask
        self._on = next((x.device for x in chain(head.parameters(), head.buffers())), texts.device)
        self.device = texts.device
        self.shape = (len(texts), len(videos))
        self.rows_per_block = max(1, _BLOCK // max(1, len(videos)))

    @torch.no_grad()
    def block(self, rows: slice) -> Tensor:
        """Return some rows, float32 [n, num_videos]."""
        texts = self._texts[rows]
        block = torch.empty(len(texts), self.shape[1], device=self.device)
        pairs = max(1, _HEAD_BLOCK // max(1, texts[:1].numel(), self._videos[:1].numel()))
        step = max(1, int(pairs**0.5))
        for first, last in bounds(step, self.shape[1]):
            videos = self._videos[first:last].to(self._on)
            mask = None if self._mask is None else self._mask[first:last].to(self._on)
            for start, stop in bounds(max(1, pairs // (last - first)), len(texts)):
                scores = self._head.similarity(texts[start:stop].to(self._on), videos, mask)
                if scores.shape != (stop - start, last - first):
                    raise ValueError(f'{type(self._head).__name__}.similarity gave the shape {tuple(scores.shape)} for '
                                     f'{stop - start} texts and {last - first} videos')
                block[start:stop, first:last] = scores
        return block


class MatrixRows:
    """Rows of a matrix, as float tensors that are checked to be finite.

    Args:
        similarity (ndarray | Tensor): [num_texts, num_videos], float16 to float64 or integers.

    Raises:
        ValueError: Wrong shape or type; on reading, an element that is not finite (the message names its position).
    """

    def __init__(self, similarity: Array) -> None:
        if not isinstance(similarity, Tensor):
            similarity = np.asarray(similarity)
        if similarity.ndim != 2 or 0 in similarity.shape:
            raise ValueError('similarity must be [num_texts, num_videos], both at least 1, '
                             f'got the shape {tuple(similarity.shape)}')
        self._source = similarity.detach() if isinstance(similarity, Tensor) else similarity
        self._dtype = _dtype_to_compare(similarity)
        self.shape = tuple(similarity.shape)
        self.rows_per_block = max(1, _BLOCK // self.shape[1])

    def on_device(self, indices: np.ndarray) -> Tensor:
        """Return indices [n] as a tensor on the device of the matrix."""
        return torch.as_tensor(indices, device=self._source.device if isinstance(self._source, Tensor) else None)

    def block(self, rows: slice | np.ndarray) -> Tensor:
        """Return some rows, [n, num_videos]."""
        block = self._read(rows)
        # one sum is much faster than checking every element, and is not finite if any of them isn't
        if not torch.isfinite(block.sum()):
            self._check_finite(block, rows)
        return block

    def at(self, columns: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return one element of each row, [n]."""
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
        # a copy: the source may be read-only, have another byte order, or be a file
        return torch.from_numpy(np.array(self._source[index], dtype=self._dtype))

    def _check_finite(self, block: Tensor, rows: slice | np.ndarray) -> None:
        wrong = torch.isfinite(block).logical_not().nonzero()
        if len(wrong):  # otherwise only the sum overflowed, which is no error
            row, column = wrong[0].tolist()
            name = rows.start + row if isinstance(rows, slice) else rows[row]
            raise _not_finite(name, column, block[row, column])


class ChangedRows:
    """Rows of a matrix whose elements are transformed, in float64, as they are read.

    Args:
        rows (MatrixRows): The matrix.
        change (Callable): ``change(values, text, video)`` returns the new values, given the values and the indices of
            their texts and videos, all of shapes that broadcast together.
    """

    def __init__(self, rows: MatrixRows, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self._rows, self._change = rows, change
        self.shape, self.rows_per_block, self.on_device = rows.shape, rows.rows_per_block, rows.on_device
        self._texts, self._videos = (rows.on_device(np.arange(n)) for n in rows.shape)

    def block(self, rows: slice | np.ndarray) -> Tensor:
        """Return some rows, [n, num_videos]."""
        return self._change(self._rows.block(rows).double(), self._texts[rows][:, None], self._videos[None])

    def at(self, columns: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return one element of each row, [n]."""
        return self._change(self._rows.at(columns, rows).double(), self._texts if rows is None else rows, columns)


Rows = MatrixRows | FeatureRows | HeadRows | ChangedRows


def _check_finite(texts: Tensor, videos: Tensor) -> None:
    for name, features in (('text', texts), ('video', videos)):
        finite = torch.isfinite(features).flatten(1).all(1)
        if not finite.all():
            raise ValueError(f'the features of {name} {int(finite.logical_not().nonzero()[0])} are not finite')


def _not_finite(row, column, value) -> ValueError:
    return ValueError(f'similarity is not finite at text {int(row)}, video {int(column)}: {float(value)}')


def _dtype_to_compare(similarity: Array):
    """Return the matrix's dtype if it is fast to compare, otherwise one that represents its values exactly."""
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
