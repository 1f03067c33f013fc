"""Search indexes without a model, and what somebody else may have done to them."""
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from vop_mm.search import SearchIndex
from vop_mm.search.catalogue import FileState

DIM = 8


def unit(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Vectors of unit norm, float32 [count, dim]."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_index(folder: Path, videos: Path, count: int = 12, backend: dict | None = None, dim: int = DIM) -> np.ndarray:
    """An index of ``0.mp4``, ``1.mp4`` ... of one clip each, which aren't there; their vectors."""
    vectors = unit(count, dim)
    search_index = SearchIndex.create(folder, videos, dict(dim=dim, prompts='a, b', window=2., stride=1.),
                                       backend or dict(type='FaissIndex'), dict(config='', checkpoint=None))
    with closing(search_index), search_index.locked():
        add_files(search_index, vectors)
        search_index.synchronize()
    return vectors


def add_files(search_index: SearchIndex, vectors: np.ndarray, first: int = 0) -> None:
    """Files of one clip each into a catalogue."""
    with search_index.catalogue.transaction():
        for number, vector in enumerate(vectors, first):
            state = FileState(10, 20, f'{number:032x}', None)
            search_index.catalogue.put_file(f'{number}.mp4', state, [(0., 2.)], [vector])


def change(index: Path, *statements: str) -> None:
    """Run SQL in a catalogue, whatever it does."""
    with closing(sqlite3.connect(index / 'catalogue.db')) as db:
        db.executescript(';'.join(statements))


def found(index: Path, vector: np.ndarray, k: int = 3) -> list[str]:
    """Names of the videos that a search finds."""
    with closing(SearchIndex(index)) as search_index:
        return [Path(hit.path).name for hit in search_index.search(vector, k)]
