"""A search index on disk: a folder with a catalog, a vector index, and what they were made with."""
import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from vop_mm.registry import INDEXES
from vop_mm.utils.files import remove_leftovers
from vop_mm.utils.locks import locked
from vop_mm.utils.shared_config import SharedConfigError, build_part

from .catalogue import Catalogue, Clip
from .hit import Hit
from .index_files import CATALOGUE, LOCK, busy, create_index_files
from .nearest import RERANKED, NearestClips
from .place import path_of_video, place_of_videos
from .vectors.faiss_index import FaissIndex
from .vectors.vector_index import DamagedVectorsError, VectorIndex, check_vectors

SERVERS = 'VOP_MM_MILVUS_URI'  # environment variable with trusted server addresses


class IndexMismatchError(ValueError):
    """The index was made with another CLIP, other prompts or other settings."""


class SearchIndex:
    """An open search index.

    It may come from an untrusted source: its content is checked, and it is read-only until something is changed.

    Args:
        folder (str | Path): Folder of the index.
        backend (dict, optional): Backend options from the user. A server is contacted only if its address is given here
            or in ``$VOP_MM_MILVUS_URI``, not because the index names it.

    Attributes:
        settings (dict): Settings that its vectors were made with; compared by :meth:`check`.
        videos (str): Folder of the videos, or their address (without passwords), or their manifest.
        catalogue (Catalogue): Files, clips and vectors.
        vectors (VectorIndex, optional): Index of the vectors.

    Raises:
        FileNotFoundError: The index is missing.
        ValueError: The index is damaged. Every method may raise this.
        ConnectionError: Its Milvus server can't be reached, or only the index names it.
    """

    def __init__(self, folder: str | Path, backend: dict | None = None) -> None:
        self.folder = Path(folder)
        self.catalogue = Catalogue(self.folder / CATALOGUE)
        self.vectors: VectorIndex | None = None
        self._nearest: NearestClips | None = None
        self._is_stand_in = False  # vectors are in memory because the file is damaged
        named = (backend or {}).get('uri') or ''
        self._servers = [uri.rstrip('/') for uri in (named, *os.environ.get(SERVERS, '').split())]
        try:
            self._inode = os.stat(self.folder / CATALOGUE).st_ino
            self.settings, self.videos = self.catalogue.get('settings'), self.catalogue.get('videos')
            self.backend = self.catalogue.get('backend')
            self.generation = self.catalogue.get('generation', 0)
            if self.settings is None or self.videos is None:
                raise ValueError(f'{self.folder / CATALOGUE} has no settings: index the videos again')
            if self.backend is not None:  # features have no vector index; they are merged into one later
                self._use(lambda: self._open(self.backend))
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: str | Path, videos: str | Path, settings: dict, backend: dict | None,
               source: dict | None = None) -> 'SearchIndex':
        """Create an empty index. On failure, nothing is left behind.

        Args:
            folder (str | Path): Folder to create; an existing one must be empty.
            videos (str | Path): Folder, address or manifest of the videos.
            settings (dict): Settings that the vectors will be made with, as JSON types; ``dim`` is their length.
            backend (dict, optional): Config from the registry ``INDEXES``, without ``folder`` and ``dim``. None:
                features only, without a vector index.
            source (dict, optional): What to load for searching it, as JSON types.

        Raises:
            FileExistsError: The folder contains something else.
        """
        create_index_files(Path(folder), videos, settings, backend, source)
        return cls(folder, backend)

    @staticmethod
    def source(folder: str | Path) -> dict:
        """Return what to load for searching an index, as it was passed to :meth:`create`."""
        with closing(Catalogue(Path(folder) / CATALOGUE)) as catalogue:
            return catalogue.get('source') or {}

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Return True if there is an index."""
        return (Path(folder) / CATALOGUE).is_file()

    def close(self) -> None:
        """Close files and connections."""
        self.catalogue.close()
        if self.vectors is not None:
            self.vectors.close()

    def check(self, settings: dict) -> None:
        """Refuse other settings than those of the index, where they are given (IndexMismatchError)."""
        for key, value in settings.items():
            if self.settings.get(key) != value:
                raise IndexMismatchError(f'the index {self.folder} was made with other settings: '
                                         f'{key} {self.settings.get(key)}, not {value}; without --config, tools '
                                         'use those of the index')

    def adjust(self, backend: dict) -> None:
        """Change backend options, stored when indexing ends; others can't change (IndexMismatchError)."""
        self._check_searchable()
        changed = {key: value for key, value in backend.items() if self.backend.get(key) != value}
        if changed.keys() - self.vectors.adjustable:
            raise IndexMismatchError(f'the index {self.folder} is stored in {self.backend}, which cannot be changed: '
                                     'create another index')
        if changed:
            new, old = {**self.backend, **changed}, self.vectors
            self._use(lambda: self._open(new))
            old.close()
            self.backend = new

    def _open(self, backend: dict) -> VectorIndex:
        uri = backend.get('uri')
        if uri is not None and str(uri).rstrip('/') not in self._servers:
            raise ConnectionError(f'the index {self.folder} names the server {uri!r:.200}, which is not trusted: if '
                                  f'you know it, set {SERVERS} to that address')
        try:
            return build_part(backend, 'backend', INDEXES, folder=str(self.folder), dim=self.settings['dim'])
        except SharedConfigError as e:
            raise SharedConfigError(f'the index {self.folder} is refused: {e}') from None

    def _use(self, opened: Callable[[], VectorIndex]) -> None:
        """Open the vector index; if its file is damaged, use the catalog's vectors in memory."""
        self._is_stand_in, self._nearest = False, None
        try:
            self.vectors = opened()
        except DamagedVectorsError as e:
            self._stand_in(e)

    def _stand_in(self, why: object) -> None:
        logging.getLogger(__name__).warning('%s: searching the vectors of the catalog in memory; run '
                                            'tools/index_videos.py to repair the index', why)
        self._is_stand_in, self._nearest = True, None
        self.vectors = FaissIndex(self.folder, self.settings['dim'], exact_up_to=2**62, read=False)
        for ids, vectors in self.catalogue.vectors():
            self.vectors.add(ids, vectors)

    def _check_searchable(self) -> None:
        if self.vectors is None:
            raise ValueError(f'{self.folder} contains extracted features: make an index of all parts with '
                             'tools/index_videos.py --features')

    def fits(self, settings: dict) -> bool:
        """Return True if :meth:`check` would pass."""
        return all(self.settings.get(key) == value for key, value in settings.items())

    def follow_move(self, videos: str | Path) -> None:
        """Use this folder of videos if the index's own no longer exists; it is stored when indexing begins."""
        videos = place_of_videos(videos)
        if not ('://' in videos + self.videos or os.path.exists(self.videos)):
            self.videos = videos

    def check_videos(self, videos: str | Path) -> None:
        """Raise ValueError if the index is for other videos."""
        place = place_of_videos(videos)  # without passwords
        if place != self.videos:
            raise ValueError(f'the index {self.folder} is for the videos in {self.videos}, not in {place}')

    def is_current(self) -> bool:
        """Return True if the index was neither changed nor replaced since it was opened."""
        try:
            # inode numbers are not reused while the file is open here
            same = os.stat(self.folder / CATALOGUE).st_ino == self._inode
        except OSError:
            return False
        return same and self.catalogue.get('generation', 0) == self.generation

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the index for changes until the process ends; BlockingIOError if another process has the lock."""
        with locked(self.folder.resolve() / LOCK, busy(self.folder)):
            if os.stat(self.folder / CATALOGUE).st_ino != self._inode:
                raise OSError(errno.ESTALE, 'the index was replaced by another one', str(self.folder))
            remove_leftovers(self.folder)
            self.catalogue.allow_writing()
            if self.catalogue.get('videos') != self.videos:
                with self.catalogue.transaction():
                    self.catalogue.set('videos', self.videos)
            yield

    def synchronize(self) -> None:
        """Apply the catalog's pending changes to the vector index, and save both."""
        if self.vectors is None:
            return
        self.vectors.remove(self.catalogue.removed())
        for ids, vectors in self.catalogue.added():
            self.vectors.add(ids, vectors)
        self.vectors.save()
        with self.catalogue.transaction():
            self.catalogue.changes_done()
            self.catalogue.set('generation', self.generation + 1)
            self.catalogue.set('backend', self.backend)
        self.generation += 1
        self._nearest = None

    def set_finished(self, finished: bool) -> None:
        """Record if features contain all files; they have no vector index that would show it."""
        if self.vectors is None:
            with self.catalogue.transaction():
                self.catalogue.set('finished', finished)

    def is_finished(self) -> bool:
        """Return True if features contain all files."""
        return self.catalogue.get('finished', False)

    def repair(self) -> None:
        """Mark the vector index to be refilled if its content does not match the catalog."""
        if self.vectors is None:
            return
        if self._is_stand_in:
            self.vectors.close()
            self._use(lambda: self._open({**self.backend, 'read': False}))
        elif abs(len(self.vectors) - self.catalogue.num_clips()) <= self.catalogue.num_changes():
            return
        self.vectors.clear()
        with self.catalogue.transaction():
            self.catalogue.all_changed()

    def search(self, vector: np.ndarray, k: int = 5, merge: bool = True,
               score: Callable[[np.ndarray], np.ndarray] | None = None, rerank: int = RERANKED) -> list[Hit]:
        """Find the clips nearest to a query.

        Args:
            vector (np.ndarray): float32 [D], unit norm.
            k (int): Number of clips. Defaults to 5.
            merge (bool): Return only the best moment of each video. Defaults to True.
            score (Callable, optional): Function to re-rank the nearest clips by their stored values: float32
                [n, kept] -> [n].
            rerank (int): Number of clips to re-rank, at least ``k``. Defaults to 100.

        Returns:
            list[Hit]: At most ``k`` hits, best first.
        """
        if k < 1:
            raise ValueError(f'k must be at least 1, got {k}')
        self._check_searchable()
        vector = np.asarray(vector, np.float32)
        check_vectors(vector[None], self.settings['dim'])
        try:
            found = self._search(vector, k, merge, score, rerank)
        except DamagedVectorsError as e:
            self.vectors.close()
            self._stand_in(e)
            found = self._search(vector, k, merge, score, rerank)
        return [Hit(path_of_video(self.videos, clip.path), value, clip.start, clip.end) for value, clip in found]

    def _search(self, *query) -> list[tuple[float, Clip]]:
        if self._nearest is None:
            self._nearest = NearestClips(self.catalogue, self.vectors, self.generation)
        return self._nearest.search(*query)
