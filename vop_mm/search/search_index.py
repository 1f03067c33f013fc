"""A search index on disk: a folder with a catalog, a vector index, and what they were made with."""
import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from vop_mm.registry import INDEXES
from vop_mm.utils.files import remove_leftovers, temporary_folder
from vop_mm.utils.locks import locked
from vop_mm.utils.shared_config import SharedConfigError, build_part

from .catalogue import Catalogue
from .hit import Hit
from .place import path_of_video, place_of_videos
from .vectors.faiss_index import FaissIndex
from .vectors.vector_index import DamagedVectorsError, VectorIndex, check_vectors

DEFAULT_BACKEND: dict = dict(type='FaissIndex')
CATALOGUE = 'catalogue.db'  # in the folder of an index
SERVERS = 'VOP_MM_MILVUS_URI'  # environment variable with trusted server addresses
_LOCK, _MILVUS = 'lock', 'milvus.db'
RERANKED = 100  # number of nearest clips, for heads that need more than vectors
_SAME_SCORE = 1e-3  # tolerance between the score of an exact index and the cosine with the catalog's vector


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
        self._is_stand_in = False  # vectors are in memory because the file is damaged
        self._size: int | None = None  # size of the vector index; counting is slow on a server
        named = (backend or {}).get('uri') or ''
        self._servers = [uri.rstrip('/') for uri in (named, *os.environ.get(SERVERS, '').split())]
        try:
            self._inode = os.stat(self.folder / CATALOGUE).st_ino
            self.settings, self.videos = self.catalogue.get('settings'), self.catalogue.get('videos')
            self.backend = self.catalogue.get('backend')
            self.generation = self.catalogue.get('generation', 0)
            if self.settings is None or self.videos is None:
                raise ValueError(f'{self.folder / CATALOGUE} does not say what it is an index of')
            if self.backend is not None:  # features have no vector index; they are merged into one later
                self._fill_if_damaged(lambda: self._open(self.backend))
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

        Returns:
            SearchIndex: The open index.

        Raises:
            FileExistsError: The folder holds something else.
        """
        folder = Path(folder)
        backend = backend and dict(backend)
        if backend and backend['type'].endswith('MilvusIndex'):  # several indexes may share a cluster
            backend.setdefault('collection', f'vop_mm_{uuid.uuid4().hex[:12]}')
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
            made = True
        except FileExistsError:
            made = False
            cls._check_free(folder)
        try:
            with locked(folder / _LOCK, _busy(folder)):
                if not cls.exists(folder):  # otherwise another process was faster
                    try:
                        cls._write(folder, dict(settings=settings, videos=place_of_videos(videos), backend=backend,
                                                source=source))
                    except BaseException:
                        if made:
                            shutil.rmtree(folder, ignore_errors=True)
                        raise
        except OSError:
            if made:
                with suppress(OSError):  # fails if another process creates its index there
                    folder.rmdir()
            raise
        return cls(folder, backend)

    @classmethod
    def _check_free(cls, folder: Path) -> None:
        """Refuse a folder that holds something other than an index or the remains of creating one."""
        if folder.is_dir():
            remove_leftovers(folder)
            left = [path.name for path in folder.iterdir()]
            # milvus.db may hold other collections; temporary files belong to a process that is creating an index now
            if cls.exists(folder) or all(name in (_LOCK, _MILVUS) or name.startswith('.vop_mm.') for name in left):
                return
        raise FileExistsError(f'{folder} is there and is no search index: name another folder')

    @staticmethod
    def _write(folder: Path, contents: dict) -> None:
        with temporary_folder(folder, 'index') as beside:
            catalogue = Catalogue(beside / CATALOGUE, create=True)
            try:
                with catalogue.transaction():
                    for key, value in contents.items():
                        catalogue.set(key, value)
            finally:
                catalogue.close()
            # before the catalog gets its final name: if Milvus can't be reached, there is no index
            backend, settings = contents['backend'], contents['settings']
            if backend:
                build_part(backend, 'backend', INDEXES, folder=str(folder), dim=settings['dim']).close()
            os.replace(beside / CATALOGUE, folder / CATALOGUE)

    @staticmethod
    def source(folder: str | Path) -> dict:
        """Return what to load for searching an index, as it was passed to :meth:`create`."""
        catalogue = Catalogue(Path(folder) / CATALOGUE)
        try:
            return catalogue.get('source') or {}
        finally:
            catalogue.close()

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
        """Refuse to mix vectors that can't be compared.

        Args:
            settings (dict): Settings of the current retriever. Only its keys are compared.

        Raises:
            IndexMismatchError: CLIP, prompts or other settings differ; the message names the setting.
        """
        for key, value in settings.items():
            if self.settings.get(key) != value:
                raise IndexMismatchError(f'the index {self.folder} was made with other settings: '
                                         f'{key} {self.settings.get(key)}, not {value}; tools take its own where '
                                         'no --config is named')

    def adjust(self, backend: dict) -> None:
        """Change backend options that don't require a new index; they are stored when indexing ends.

        Args:
            backend (dict): Backend config, complete or in part.

        Raises:
            IndexMismatchError: The backend differs, or an option can't be changed.
            ValueError: There are only features.
        """
        self._check_searchable()
        changed = {key: value for key, value in backend.items() if self.backend.get(key) != value}
        if changed.keys() - self.vectors.adjustable:
            raise IndexMismatchError(f'the index {self.folder} is kept in {self.backend}: to move it, make another')
        if changed:
            new, old = {**self.backend, **changed}, self.vectors
            self._fill_if_damaged(lambda: self._open(new))
            old.close()
            self.backend = new

    def _open(self, backend: dict) -> VectorIndex:
        uri = backend.get('uri')
        if uri is not None and str(uri).rstrip('/') not in self._servers:
            raise ConnectionError(f'the index {self.folder} names the server {uri!r:.200}; a server is only talked to '
                                  f'when you name it yourself: if you know it, set {SERVERS} to that address')
        try:
            return build_part(backend, 'backend', INDEXES, folder=str(self.folder), dim=self.settings['dim'])
        except SharedConfigError as e:
            raise SharedConfigError(f'the index {self.folder} is refused: {e}') from None

    def _fill_if_damaged(self, opened: Callable[[], VectorIndex]) -> None:
        """Open the vector index; if its file is damaged, use the catalog's vectors in memory."""
        self._is_stand_in = False
        try:
            self.vectors = opened()
        except DamagedVectorsError as e:
            self._stand_in(e)

    def _stand_in(self, why: object) -> None:
        logging.getLogger(__name__).warning('%s: its vectors are taken from the catalogue, for now in memory; '
                                            'tools/index_videos.py writes it anew', why)
        self.vectors = FaissIndex(self.folder, self.settings['dim'], exact_up_to=2**62, read=False)
        self._is_stand_in, self._size = True, None
        for ids, vectors in self.catalogue.vectors():
            self.vectors.add(ids, vectors)

    def _check_searchable(self) -> None:
        if self.vectors is None:
            raise ValueError(f'{self.folder} holds a part of features and no index: tools/index_videos.py --features '
                             'makes one of all parts')

    def fits(self, settings: dict) -> bool:
        """Return True if :meth:`check` would pass."""
        return all(self.settings.get(key) == value for key, value in settings.items())

    def is_of(self, videos: str | Path) -> bool:
        """Return True if the index is for this folder; follows a moved folder, and stores it when indexing begins."""
        videos = place_of_videos(videos)
        if videos != self.videos and not ('://' in videos + self.videos or os.path.exists(self.videos)):
            self.videos = videos
        return videos == self.videos

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
        """Prevent other processes from changing this index within the context; the lock ends with the process.

        Raises:
            BlockingIOError: Another process is changing the index.
            OSError: The index can't be written, or was replaced by another one.
        """
        with locked(self.folder.resolve() / _LOCK, _busy(self.folder)):
            if os.stat(self.folder / CATALOGUE).st_ino != self._inode:
                raise OSError(errno.ESTALE, 'another index was put in its place', str(self.folder))
            remove_leftovers(self.folder)
            self.catalogue.allow_writing()
            if self.catalogue.get('videos') != self.videos:
                with self.catalogue.transaction():
                    self.catalogue.set('videos', self.videos)
            yield

    def synchronize(self, progress: Callable[[int], None] = lambda count: None) -> None:
        """Apply the catalog's pending changes to the vector index, and save both.

        Args:
            progress (Callable): Called after each step with the number of vectors added so far.
        """
        if self.vectors is None:
            return
        self.vectors.remove(self.catalogue.removed())
        done = 0
        for ids, vectors in self.catalogue.added():
            self.vectors.add(ids, vectors)
            progress(done := done + len(ids))
        self.vectors.save()
        with self.catalogue.transaction():
            self.catalogue.changes_done()
            self.catalogue.set('generation', self.generation + 1)
            self.catalogue.set('backend', self.backend)
        self.generation += 1
        self._size = None

    def finished(self, value: bool) -> None:
        """Record if features contain all files; they have no vector index that would show it."""
        if self.vectors is None:
            with self.catalogue.transaction():
                self.catalogue.set('finished', value)

    def is_finished(self) -> bool:
        """Return True if features contain all files; see :meth:`finished`."""
        return self.catalogue.get('finished', False)

    def repair(self) -> None:
        """Mark the vector index to be refilled if its content does not match the catalog."""
        if self.vectors is None:
            return
        if self._is_stand_in:
            self.vectors.close()
            self.vectors = self._open({**self.backend, 'read': False})
            self._is_stand_in = False
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

        Raises:
            ValueError: ``k`` is less than 1, there are only features, or indexing was interrupted before anything could
                be found.
        """
        if k < 1:
            raise ValueError(f'k must be at least 1, got {k}')
        self._check_searchable()
        vector = np.asarray(vector, np.float32)
        check_vectors(vector[None], self.settings['dim'])
        try:
            return self._search(vector, k, merge, score, rerank)
        except DamagedVectorsError as e:
            self.vectors.close()
            self._stand_in(e)
            return self._search(vector, k, merge, score, rerank)

    def _search(self, vector: np.ndarray, k: int, merge: bool, score: Callable | None, rerank: int) -> list[Hit]:
        if self._size is None:
            self._size = self._count()
        total, asked = self._size, k + 8 if score is None else max(k, rerank)
        if not total and self.catalogue.num_clips():
            raise ValueError(f'the index {self.folder} is not finished, or lost its vectors: index its folder again '
                             '(what is in the catalogue is not encoded again)')
        while True:
            asked = min(asked, total)
            if not asked:
                return []
            scores, ids = self.vectors.search(vector[None], asked)  # [1, asked]
            if self.vectors.is_exact and (ids < 0).all():
                raise DamagedVectorsError(f'{self.folder} holds {total} vectors that nothing finds')
            hits = self._hits(vector, scores[0], ids[0], merge, score)
            if len(hits) >= k or asked == total:
                return hits[:k]
            asked *= 4  # clips of the same video, or missing ones, took the places

    def _count(self) -> int:
        """Return the number of vectors; raise an error if it does not match the catalog."""
        count = len(self.vectors)
        if self.vectors.is_exact and count:
            there, changes = self.catalogue.num_clips(), self.catalogue.num_changes()
            if abs(count - there) > changes:
                raise DamagedVectorsError(f'{self.folder} holds {count} vectors of {there} clips')
        return count

    def _hits(self, vector: np.ndarray, scores: np.ndarray, ids: np.ndarray, merge: bool,
              score_kept: Callable | None) -> list[Hit]:
        clips, cosines = self.catalogue.compare(ids, vector)
        self._check_found(ids, clips)
        found = [pair for pair in zip(scores.tolist(), ids.tolist()) if pair[1] in clips]
        for score, number in found:
            if self.vectors.is_exact and not abs(score - cosines[number]) < _SAME_SCORE:
                raise DamagedVectorsError(f'{self.folder} holds another vector of clip {number} than the catalogue')
        if found and score_kept is not None:
            numbers, kept = self.catalogue.kept([number for _, number in found])
            found = sorted(zip(score_kept(kept).tolist(), numbers.tolist()), key=lambda pair: -pair[0])
        hits, seen = [], set()
        for score, number in found:
            clip = clips[number]
            if not (merge and clip.path in seen):
                seen.add(clip.path)
                hits.append(Hit(path_of_video(self.videos, clip.path), score, clip.start, clip.end))
        return hits

    def _check_found(self, ids: np.ndarray, clips: dict) -> None:
        """Refuse vectors of clips that the catalog lacks, unless they were just removed."""
        gone = [number for number in ids.tolist() if number >= 0 and number not in clips]
        # This order matters: another process records removals, updates the vector index, and then increases the
        # generation.
        if (gone and self.vectors.is_exact and not self.catalogue.num_changes()
                and self.catalogue.get('generation', 0) == self.generation):
            raise DamagedVectorsError(f'{self.folder} holds a vector of clip {gone[0]}, which its catalogue lacks')


def _busy(folder: Path) -> str:
    return f'another process is changing the index {folder}'
