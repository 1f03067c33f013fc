"""A search index on disk: a folder with a catalogue, an index of vectors, and what they were made with."""
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vop_mm.registry import INDEXES

from .catalogue import Catalogue
from .vector_index import VectorIndex

DEFAULT_BACKEND: dict = dict(type='FaissIndex')
CATALOGUE = 'catalogue.db'  # in the folder of an index
_BESIDE = '.new.'  # begins the name of what is written before it is there
_LOCKED: set[str] = set()  # indexes that this process changes


class IndexMismatchError(ValueError):
    """An index that was made with another CLIP, other prompts or other settings."""


@dataclass(frozen=True)
class Hit:
    """A moment that was found; ``path, score = hit`` works as well.

    Attributes:
        path (str): The video.
        score (float): Cosine with the query.
        start (float): Where the moment begins, in seconds.
        end (float): Where it ends.
    """
    path: str
    score: float
    start: float
    end: float

    def __iter__(self) -> Iterator:
        return iter((self.path, self.score))

    def __getitem__(self, index: int):
        return (self.path, self.score)[index]


class Gallery:
    """A search index, opened.

    Args:
        folder (str | Path): Of the index.

    Attributes:
        settings (dict): What its vectors were made with; :meth:`check` compares it.
        videos (str): Folder of the videos.
        catalogue (Catalogue): Files, clips and vectors.
        vectors (VectorIndex, optional): Where vectors are looked up.

    Raises:
        FileNotFoundError: There is no index.
        ValueError: It is damaged.
        ConnectionError: Its Milvus can't be reached.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.catalogue = Catalogue(self.folder / CATALOGUE)
        try:
            self.settings, self.videos = self.catalogue.get('settings'), self.catalogue.get('videos')
            self.backend = self.catalogue.get('backend')
            # features are only kept, and taken in by an index later
            self.vectors = self.backend and self._open(self.backend)
        except BaseException:
            self.catalogue.close()
            raise
        self.generation = self.catalogue.get('generation', 0)
        self._inode = os.stat(self.folder / CATALOGUE).st_ino
        self._size: int | None = None  # of the index of vectors; a server takes its time to count

    @classmethod
    def create(cls, folder: str | Path, videos: str | Path, settings: dict, backend: dict | None,
               source: dict | None = None) -> 'Gallery':
        """Make an empty index. Where that fails, nothing is left behind.

        Args:
            folder (str | Path): Is made; one that is there must be empty.
            videos (str | Path): Folder of the videos.
            settings (dict): What the vectors will be made with, for JSON; ``dim`` is their length.
            backend (dict, optional): Config of the registry ``INDEXES``, without ``folder`` and ``dim``. None: no index
                of vectors, features alone.
            source (dict, optional): What to load to search it, for JSON.

        Returns:
            Gallery: Opened.

        Raises:
            FileExistsError: The folder holds something else.
        """
        folder = Path(folder)
        made = not folder.exists()
        if not made:
            left = list(folder.iterdir()) if folder.is_dir() else [folder]
            if not all(path.name.startswith(_BESIDE) or path.name == 'milvus.db' for path in left):
                raise FileExistsError(f'{folder} is there and is no search index: name another folder')
            for path in left:  # of a call that was killed; what is in milvus.db is in other collections
                if path.name.startswith(_BESIDE):
                    shutil.rmtree(path)
        folder.mkdir(parents=True, exist_ok=True)
        backend = backend and dict(backend)
        if backend and backend['type'].endswith('MilvusIndex'):  # several indexes may share a cluster
            backend.setdefault('collection', f'vop_mm_{uuid.uuid4().hex[:12]}')
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=_BESIDE) as beside:
                catalogue = Catalogue(Path(beside) / CATALOGUE, create=True)
                with catalogue.transaction():
                    contents = dict(settings=settings, videos=os.path.abspath(videos), backend=backend, source=source)
                    for key, value in contents.items():
                        catalogue.set(key, value)
                catalogue.close()
                # before it is there under its name: a Milvus that can't be reached leaves no index
                if backend:
                    INDEXES.build(dict(backend, folder=str(folder), dim=settings['dim'])).close()
                os.replace(Path(beside) / CATALOGUE, folder / CATALOGUE)
        except BaseException:
            if made:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder)

    @staticmethod
    def source(folder: str | Path) -> dict:
        """What to load to search an index, as it was given to :meth:`create`."""
        catalogue = Catalogue(Path(folder) / CATALOGUE)
        try:
            return catalogue.get('source') or {}
        finally:
            catalogue.close()

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Whether there is an index."""
        return (Path(folder) / CATALOGUE).is_file()

    def close(self) -> None:
        """Let go of files and connections."""
        self.catalogue.close()
        if self.vectors is not None:
            self.vectors.close()

    def check(self, settings: dict) -> None:
        """Refuse to mix vectors that can't be compared.

        Args:
            settings (dict): Of the retriever that asks. Only its own keys are compared.

        Raises:
            IndexMismatchError: Another CLIP, other prompts or other settings; it says which.
        """
        for key, value in settings.items():
            if self.settings.get(key) != value:
                raise IndexMismatchError(f'the index {self.folder} was made with other settings: '
                                         f'{key} {self.settings.get(key)}, not {value}')

    def adjust(self, backend: dict) -> None:
        """Change options of the back end that need no other index; they are kept when indexing ends.

        Args:
            backend (dict): Some or all of its config.

        Raises:
            IndexMismatchError: Another back end, or an option that can't change.
            ValueError: There are features alone.
        """
        self._check_searchable()
        changed = {key: value for key, value in backend.items() if self.backend.get(key) != value}
        if changed.keys() - self.vectors.adjustable:
            raise IndexMismatchError(f'the index {self.folder} is kept in {self.backend}: to move it, make another')
        if changed:
            vectors = self._open({**self.backend, **changed})
            self.vectors.close()
            self.vectors, self.backend = vectors, {**self.backend, **changed}

    def _open(self, backend: dict) -> VectorIndex:
        return INDEXES.build(dict(backend, folder=str(self.folder), dim=self.settings['dim']))

    def _check_searchable(self) -> None:
        if self.vectors is None:
            raise ValueError(f'{self.folder} holds a part of features and no index: tools/index_videos.py --features '
                             'makes one of all parts')

    def fits(self, settings: dict) -> bool:
        """Whether :meth:`check` would pass."""
        return all(self.settings.get(key) == value for key, value in settings.items())

    def is_of(self, videos: str | Path) -> bool:
        """Whether the index is of this folder; a folder that was moved is followed."""
        videos = os.path.abspath(videos)
        if videos != self.videos and not os.path.isdir(self.videos):
            with self.catalogue.transaction():
                self.catalogue.set('videos', videos)
            self.videos = videos
        return videos == self.videos

    def is_current(self) -> bool:
        """Whether nobody has changed the index since it was opened, or put another in its place."""
        try:
            # while it is open here, no other file gets its number
            same = os.stat(self.folder / CATALOGUE).st_ino == self._inode
        except OSError:
            return False
        return same and self.catalogue.get('generation', 0) == self.generation

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within it no other process changes this index; the lock ends with the process.

        Raises:
            BlockingIOError: Another process changes it now.
        """
        name = str(self.folder.resolve())
        # A POSIX lock: those of flock are inherited by the processes that decode, which outlive a killed parent by
        # seconds. It doesn't keep threads of one process apart.
        with (self.folder / 'lock').open('w') as file:
            try:
                if name in _LOCKED:
                    raise BlockingIOError
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(f'another process is changing the index {self.folder}') from None
            _LOCKED.add(name)
            try:
                yield
            finally:
                _LOCKED.discard(name)

    def synchronize(self, progress: Callable[[int], None] = lambda count: None) -> None:
        """Tell the index of vectors what has changed in the catalogue, and keep both.

        Args:
            progress (Callable): Is told after each step how many vectors have been added in all.
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
        """Note of features, which have no index of vectors that would show it, whether all files are in."""
        if self.vectors is None:
            with self.catalogue.transaction():
                self.catalogue.set('finished', value)

    def is_finished(self) -> bool:
        """Whether all files are in features; see :meth:`finished`."""
        return self.catalogue.get('finished', False)

    def repair(self) -> None:
        """Note that the index of vectors has to be filled again where it lost or never had what it was told."""
        if self.vectors is None or self.catalogue.num_changes():
            return
        if len(self.vectors) != self.catalogue.num_clips():
            self.vectors.clear()
            with self.catalogue.transaction():
                self.catalogue.all_changed()

    def search(self, vector: np.ndarray, k: int = 5, merge: bool = True) -> list[Hit]:
        """The clips nearest to a query.

        Args:
            vector (np.ndarray): float32 [D], unit norm.
            k (int): How many. Defaults to 5.
            merge (bool): Of each video only its best moment. Defaults to True.

        Returns:
            list[Hit]: At most ``k``, the best first.

        Raises:
            ValueError: ``k`` is less than 1, there are features alone, or indexing was interrupted before anything
                could be found.
        """
        if k < 1:
            raise ValueError(f'k must be at least 1, got {k}')
        self._check_searchable()
        if self._size is None:
            self._size = len(self.vectors)
        total, asked = self._size, k + 8
        if not total and self.catalogue.num_clips():
            raise ValueError(f'the index {self.folder} is not finished, or lost its vectors: index its folder again '
                             '(what is in the catalogue is not encoded again)')
        while True:
            asked = min(asked, total)
            if not asked:
                return []
            scores, ids = self.vectors.search(vector[None], asked)  # [1, asked]
            hits = self._hits(scores[0], ids[0], merge)
            if len(hits) >= k or asked == total:
                return hits[:k]
            asked *= 4  # clips of one video, or ones that are gone, took the places

    def _hits(self, scores: np.ndarray, ids: np.ndarray, merge: bool) -> list[Hit]:
        clips = self.catalogue.clips(ids)
        hits, seen = [], set()
        for score, number in zip(scores.tolist(), ids.tolist()):
            clip = clips.get(number)
            if clip is not None and not (merge and clip.path in seen):
                seen.add(clip.path)
                hits.append(Hit(os.path.join(self.videos, clip.path), score, clip.start, clip.end))
        return hits
