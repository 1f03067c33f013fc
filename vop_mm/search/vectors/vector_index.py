"""Interface of all vector indexes."""
import abc
from collections.abc import Sequence

import numpy as np

_UNIT = 0.01  # tolerance for the norm of a vector: bfloat16 has 8 bits


class DamagedVectorsError(ValueError):
    """The vector file differs from what was written; it can be rebuilt from the catalog."""


def check_vectors(vectors: np.ndarray, dim: int) -> None:
    """Refuse vectors, float32 [n, D], of another length, with values that are not finite, or of a norm other than 1."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f'expected vectors of {dim} values, got {vectors.shape}')
    if not np.isfinite(vectors).all():
        raise ValueError('an embedding is not finite: check the model and its input')
    with np.errstate(over='ignore'):
        norms = np.linalg.norm(vectors, axis=1)
    if (abs(norms - 1) > _UNIT).any():
        raise ValueError(f'an embedding has norm {norms[abs(norms - 1).argmax()]:.3g}, not 1')


class VectorIndex(abc.ABC):
    """Unit-norm vectors with numbers, searched by cosine.

    It is built from a :class:`~vop_mm.search.Catalogue` and can be rebuilt, so a backend need not survive being killed:
    everything after the last :meth:`save` is added again. Adding existing and removing missing vectors is harmless.

    Attributes:
        adjustable (frozenset[str]): Arguments that may change when the index is reopened.
        is_exact (bool): True if scores are cosines, up to rounding.
    """

    adjustable: frozenset[str] = frozenset()
    is_exact = False

    @abc.abstractmethod
    def add(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        """Add vectors, float32 [n, D], under distinct non-negative numbers, replacing those with the same numbers."""

    @abc.abstractmethod
    def remove(self, ids: Sequence[int]) -> None:
        """Remove vectors."""

    @abc.abstractmethod
    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the ``k`` nearest vectors of each query, float32 [Q, D].

        Returns:
            tuple[np.ndarray, np.ndarray]: Cosines float32 [Q, k], descending, and numbers int64 [Q, k]; -1 for missing
            ones if there are fewer than ``k``.
        """

    @abc.abstractmethod
    def save(self) -> None:
        """Save everything."""

    @abc.abstractmethod
    def clear(self) -> None:
        """Remove everything."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of vectors."""

    def close(self) -> None:
        """Close files and connections."""
