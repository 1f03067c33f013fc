"""What every index of vectors does."""
import abc
from collections.abc import Sequence

import numpy as np


class VectorIndex(abc.ABC):
    """Vectors of unit norm under numbers, searched by cosine.

    It is made of a :class:`~vop_mm.index.Catalogue` and can be made again, so a back end need not survive being killed:
    what is not behind :meth:`save` is added again. Adding what is there and removing what is not there does no harm.

    Attributes:
        adjustable (frozenset[str]): Arguments that may be others when it is opened again.
    """

    adjustable: frozenset[str] = frozenset()

    @abc.abstractmethod
    def add(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        """Add vectors, in place of those that have the same numbers.

        Args:
            ids (Sequence[int]): 0 or more each, all different, [n].
            vectors (np.ndarray): float32 [n, D], unit norm.
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
