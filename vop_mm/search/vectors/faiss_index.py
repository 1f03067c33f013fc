"""FAISS vector index in this process, stored in one file."""
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from vop_mm.registry import INDEXES

from .faiss_file import read_vectors, write_vectors
from .vector_index import DamagedVectorsError, VectorIndex, check_vectors

# Many small clusters: text queries are far from all vectors, and find the right ones more reliably with them. The cost
# is the time to build them, so training uses few vectors per cluster (FAISS recommends at least 39) and few iterations.
_CLUSTERS_PER_ROOT = 16  # times the square root of the number of vectors
_TRAINING_PER_CLUSTER, _ITERATIONS = 32, 4
_REGROW_FACTOR = 4
_BATCH = 10_000


@INDEXES.register_module()
class FaissIndex(VectorIndex):
    """Exact search up to a size; beyond it, vectors are clustered and the clusters nearest to a query are searched.

    Clusters (FAISS's IVF) are used instead of a graph (HNSW) because FAISS can't remove vectors from a graph. They are
    rebuilt when the index has grown to four times the size at which they were built.

    Args:
        folder (str | Path): Folder of ``vectors.faiss``.
        dim (int): D.
        exact_up_to (int): Maximum number of vectors for exact search. Defaults to 20000.
        num_probes (int): Number of clusters to search: more find more, but take longer. Defaults to 256.
        read (bool): Read the existing file. Defaults to True.

    Raises:
        DamagedVectorsError: The file is damaged, something else, or contains vectors of another length.
    """

    adjustable = frozenset(('exact_up_to', 'num_probes'))
    is_exact = True

    def __init__(self, folder: str | Path, dim: int, exact_up_to: int = 20_000, num_probes: int = 256,
                 read: bool = True) -> None:
        try:
            import faiss
        except ImportError:
            raise ImportError('FAISS is not installed (pip install faiss-cpu)') from None
        if not 1 <= num_probes < 2**31:
            raise ValueError(f'num_probes must be at least 1, got {num_probes}')
        self._faiss = faiss
        self._file = Path(folder) / 'vectors.faiss'
        self.dim, self.exact_up_to, self.num_probes = dim, exact_up_to, num_probes
        self.clear()
        if read and self._file.is_file():
            try:
                self._index = read_vectors(self._file, dim)
            except ValueError as e:
                raise DamagedVectorsError(f'{self._file} is damaged ({e})') from None

    def add(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        ids, vectors = np.asarray(ids, np.int64), np.ascontiguousarray(vectors, np.float32)
        if vectors.shape != (len(ids), self.dim):
            raise ValueError(f'expected {len(ids)} vectors of {self.dim} values, got {vectors.shape}')
        check_vectors(vectors, self.dim)
        self.remove(ids)
        total = len(self) + len(ids)
        if total > self.exact_up_to and total >= _REGROW_FACTOR * self._grouped_at():
            self._regroup(ids, vectors)
        else:
            self._index.add_with_ids(vectors, ids)

    def remove(self, ids: Sequence[int]) -> None:
        if len(self) and len(ids):
            self._index.remove_ids(self._faiss.IDSelectorBatch(np.asarray(ids, np.int64)))

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        vectors = np.ascontiguousarray(vectors, np.float32)
        if self._is_grouped:
            self._index.nprobe = self.num_probes
        return self._index.search(vectors, k)

    def save(self) -> None:
        write_vectors(self._index, self._file)

    def clear(self) -> None:
        self._index = self._faiss.IndexIDMap(self._faiss.IndexFlatIP(self.dim))

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def _is_grouped(self) -> bool:
        return isinstance(self._index, self._faiss.IndexIVFFlat)

    def _grouped_at(self) -> int:
        """Return the number of vectors that the clusters were built for; 0 without clusters."""
        return (self._index.nlist // _CLUSTERS_PER_ROOT)**2 if self._is_grouped else 0

    def _regroup(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors to new clusters and move the others there in parts; needs the memory of both indexes."""
        total = len(self) + len(ids)
        count = min(int(_CLUSTERS_PER_ROOT * total**0.5), total)
        rng, share = np.random.default_rng(0), min(_TRAINING_PER_CLUSTER * count / total, 1)
        some = np.concatenate([part[rng.random(len(part)) < share]
                               for _, part in chain(self._parts(), [(ids, vectors)])])
        index = self._faiss.IndexIVFFlat(self._faiss.IndexFlatIP(self.dim), self.dim, count,
                                         self._faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.min_points_per_centroid = _ITERATIONS, 1  # 1: no warning
        index.train(some)
        for old_ids, old in self._parts():
            index.add_with_ids(old, old_ids)
        index.add_with_ids(vectors, ids)
        self._index = index

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all numbers [n] and vectors [n, D] in parts."""
        faiss, index = self._faiss, self._index
        if not self._is_grouped:
            ids, flat = faiss.vector_to_array(index.id_map), faiss.downcast_index(index.index)
            for first in range(0, len(ids), _BATCH):
                size = min(_BATCH, len(ids) - first)
                yield ids[first:first + size], flat.reconstruct_n(first, size)
            return
        for number in range(index.nlist):
            size = index.invlists.list_size(number)
            if size:
                codes = faiss.rev_swig_ptr(index.invlists.get_codes(number), size * index.code_size)
                yield (faiss.rev_swig_ptr(index.invlists.get_ids(number), size).copy(),
                       codes.view(np.float32).reshape(size, self.dim).copy())
