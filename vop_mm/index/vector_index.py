"""What every index of vectors does."""
import abc
from collections.abc import Sequence

import numpy as np

_UNIT = 0.01  # how far from 1 the norm of a vector may be: bfloat16 has 8 bits


class DamagedVectorsError(ValueError):
    """A file of vectors that is not what was written; it can be made from the catalogue again."""


def check_vectors(vectors: np.ndarray, dim: int) -> None:
    """Refuse vectors that nothing would be found by.

    Args:
        vectors (np.ndarray): float32 [n, D].
        dim (int): D.

    Raises:
        ValueError: Another length, values that are not finite, or a norm that isn't 1.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f'vectors of {dim} values wanted, got {vectors.shape}')
    if not np.isfinite(vectors).all():
        raise ValueError('an embedding is not finite: the model, or what it was given, is broken')
    with np.errstate(over='ignore'):
        norms = np.linalg.norm(vectors, axis=1)
    if (abs(norms - 1) > _UNIT).any():
        raise ValueError(f'an embedding has norm {norms[abs(norms - 1).argmax()]:.3g}, not 1')


class VectorIndex(abc.ABC):
    """Vectors of unit norm under numbers, searched by cosine.

    It is made of a :class:`~vop_mm.index.Catalogue` and can be made again, so a back end need not survive being killed:
    what is not behind :meth:`save` is added again. Adding what is there and removing what is not there does no harm.

    Attributes:
        adjustable (frozenset[str]): Arguments that may be others when it is opened again.
        is_exact (bool): Scores are cosines, up to rounding.
    """

    adjustable: frozenset[str] = frozenset()
    is_exact = False

    @abc.abstractmethod
    def add(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        """Add vectors, in place of those that have the same numbers.

        Args:
            ids (Sequence[int]): 0 or more each, all different, [n].
            vectors (np.ndarray): float32 [n, D], unit norm.

        Raises:
            ValueError: Vectors of another length or norm, or not finite.
        """

    @abc.abstractmethod
    def remove(self, ids: Sequence[int]) -> None:
        """Remove vectors."""

    @abc.abstractmethod
    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest vectors of each query.

        Args:
            vectors (np.ndarray): float32 [Q, D], unit norm.
            k (int): How many, at least 1.

        Returns:
            tuple[np.ndarray, np.ndarray]: Cosines float32 [Q, k], descending, and numbers int64 [Q, k]; -1 where there
            are fewer than ``k``.
        """

    @abc.abstractmethod
    def save(self) -> None:
        """Keep everything."""

    @abc.abstractmethod
    def clear(self) -> None:
        """Remove everything."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many vectors."""

    def close(self) -> None:
        """Let go of files and connections."""
