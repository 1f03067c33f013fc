"""Find the clips nearest to a query; what the vector index says is checked against the catalog."""
from collections.abc import Callable
from functools import cached_property

import numpy as np

from .catalogue import Catalogue, Clip
from .vectors.vector_index import DamagedVectorsError, VectorIndex

RERANKED = 100  # number of nearest clips that are re-ranked by heads that need more than vectors
_SAME_SCORE = 1e-3  # tolerance between the score of an exact index and the cosine with the catalog's vector


class NearestClips:
    """Search of a vector index. Every method raises DamagedVectorsError if the index doesn't match the catalog.

    Args:
        catalogue (Catalogue): Catalog of the clips.
        vectors (VectorIndex): Index of their vectors.
        generation (int): Generation of the catalog when the index was opened.
    """

    def __init__(self, catalogue: Catalogue, vectors: VectorIndex, generation: int) -> None:
        self._catalogue, self._vectors, self._generation = catalogue, vectors, generation

    @cached_property
    def size(self) -> int:
        """Number of vectors; counting is slow on a server."""
        count, clips = len(self._vectors), self._catalogue.num_clips()
        if self._vectors.is_exact and count and abs(count - clips) > self._catalogue.num_changes():
            raise self._damaged(f'{count} vectors for {clips} clips')
        if clips and not count:
            raise ValueError(f'{self._catalogue.folder} is not finished, or its vectors are lost: run '
                             'tools/index_videos.py again; clips in the catalog are not encoded again')
        return count

    def search(self, vector: np.ndarray, k: int, merge: bool, score: Callable | None,
               rerank: int) -> list[tuple[float, Clip]]:
        """Return scores and clips, best first; see :meth:`SearchIndex.search`."""
        asked = k + 8 if score is None else max(k, rerank)
        while True:
            asked = min(asked, self.size)
            if not asked:
                return []
            cosines, ids = self._vectors.search(vector[None], asked)  # [1, asked]
            if self._vectors.is_exact and (ids < 0).all():
                raise self._damaged(f'none of {self.size} vectors is found')
            found = self._ranked(vector, cosines[0], ids[0], score)
            if merge:
                best: dict[str, tuple] = {}
                for value, clip in found:
                    best.setdefault(clip.path, (value, clip))
                found = list(best.values())
            if len(found) >= k or asked == self.size:
                return found[:k]
            asked *= 4  # clips of the same video, or missing ones, took the places

    def _ranked(self, vector: np.ndarray, cosines: np.ndarray, ids: np.ndarray,
                score: Callable | None) -> list[tuple[float, Clip]]:
        clips, expected, kept = {}, {}, []
        for numbers, found, rows in self._catalogue.rows(ids):
            clips.update(zip(numbers, found))
            if numbers:
                expected.update(zip(numbers, (rows[:, :len(vector)] @ vector).tolist()))
                if score is not None:
                    kept.append(rows[:, len(vector):])
        self._check_missing(ids, clips)
        ranked = [pair for pair in zip(cosines.tolist(), ids.tolist()) if pair[1] in clips]
        for cosine, number in ranked:
            if self._vectors.is_exact and not abs(cosine - expected[number]) < _SAME_SCORE:
                raise self._damaged(f'the vector of clip {number} differs from that in the catalog')
        if ranked and score is not None:
            ranked = sorted(zip(score(np.concatenate(kept)).tolist(), clips), key=lambda pair: -pair[0])
        return [(value, clips[number]) for value, number in ranked]

    def _check_missing(self, ids: np.ndarray, clips: dict) -> None:
        """Refuse vectors of clips that the catalog lacks, unless they were just removed."""
        missing = [number for number in ids.tolist() if number >= 0 and number not in clips]
        # This order matters: another process records removals, updates the vector index, and then increases the
        # generation.
        if (missing and self._vectors.is_exact and not self._catalogue.num_changes()
                and self._catalogue.get('generation', 0) == self._generation):
            raise self._damaged(f'a vector of clip {missing[0]}, which is not in the catalog')

    def _damaged(self, why: str) -> DamagedVectorsError:
        return DamagedVectorsError(f'the vectors of {self._catalogue.folder} are damaged ({why})')
