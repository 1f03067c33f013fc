"""An index and the prompts it was made with, as used by the search page."""
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vop_mm.utils.cli import one_line

from ..catalogue import Catalogue
from ..hit import Hit
from ..index_files import CATALOGUE
from ..place import name_of_video
from ..prompt_set import IndexSource, PromptSet, read_source
from ..search_index import IndexMismatchError, SearchIndex
from ..video_searcher import RankedText, VideoSearcher, check_query, rank_texts
from .served import open_served


@dataclass(frozen=True)
class Found(Hit):
    """A hit with what the page needs."""
    number: int  # of the clip in its index, for the page's addresses
    name: str  # path of the video relative to the video folder
    version: str  # changes with the file's content


@dataclass(frozen=True)
class Clip:
    """A clip of an index with its video opened, to be closed by the caller; start and end in seconds."""
    file: BinaryIO
    path: str
    start: float
    end: float


@dataclass(frozen=True)
class Status:
    """Content of an index."""
    clips: int  # number of searchable moments
    files: int  # number of videos that were read
    failed: list[tuple[str, str]]  # files that can't be read, and why
    waiting: int  # number of indexed clips that are not searchable yet
    settings: dict  # settings that the index was made with
    videos: str  # folder of the videos
    backend: str  # name of the vector index
    changed: datetime  # time of the last change


class Collection:
    """Videos that can be searched with one prompt set. Thread-safe.

    Args:
        name (str): Display name of the prompt set.
        index (str | Path): Folder of the index.
        searcher (VideoSearcher): Searcher with the prompts.
        prompts (str): Name of the prompts in the searcher.

    Attributes:
        follow_links (bool): Also serve videos outside of the folder that links lead to; False by default.
    """

    def __init__(self, name: str, index: str | Path, searcher: VideoSearcher, prompts: str) -> None:
        self.name, self.index, self.follow_links = name, Path(index), False
        self.searcher, self.prompts = searcher, prompts
        self._status = self._texts = None  # each with what it was made from
        self._lock, self._texts_lock = searcher.lock, threading.Lock()
        with _readable(self.index):
            self._current()

    @property
    def prompt_set(self) -> PromptSet:
        """The loaded prompt set."""
        return self.searcher.prompt_set(self.prompts)

    def search(self, query: str, k: int = 8, merge: bool = True) -> list[Found]:
        """Find moments that match a text; see :meth:`VideoSearcher.search`, also for errors."""
        check_query(query)
        prompts = self.prompt_set
        # the page itself reports unknown words
        return self.nearest(prompts.encode_text([query])[0], k, merge, prompts.scorers([query])[0])

    def unknown_words(self, query: str) -> list[str]:
        """Return the words of a query that are not in the model's vocabulary."""
        return self.searcher.unknown_words(query, self.prompts)

    def nearest(self, vector: np.ndarray, k: int = 8, merge: bool = True,
                score: Callable | None = None) -> list[Found]:
        """Find the moments nearest to an embedding or to the result of :meth:`encode_video`.

        See :meth:`SearchIndex.search` for the other arguments.
        """
        with self._lock, _readable(self.index):
            search_index = self._current()
            found = []
            for hit in search_index.search(vector[:search_index.settings['dim']], k, merge, score):
                name = name_of_video(search_index.videos, hit.path)
                number, state = search_index.catalogue.number(name, hit.start), search_index.catalogue.file(name)
                if number is not None and state is not None:  # otherwise removed during the search
                    found.append(Found(**vars(hit), number=number, name=name, version=(state.hash or '')[:12]))
            return found

    def encode_video(self, path: str | Path) -> np.ndarray:
        """Encode a whole video to float32 [D], or [D + kept] if the head is not a cosine; see :meth:`keep_video`."""
        return self.searcher.keep_video(path, self.prompts)[0]

    def rank_texts(self, vector: np.ndarray, texts: Sequence[str], k: int = 5) -> list[RankedText]:
        """Rank texts by how well they match a video from :meth:`encode_video`; return the best. Encodes texts once."""
        with self._texts_lock:
            if self._texts is None or self._texts[0] != tuple(texts):
                self._texts = tuple(texts), self.searcher.keep_text(texts, self.prompts)
            return rank_texts(texts, self.prompt_set.score_one(self._texts[1], vector))[:k]

    def clip(self, number: int) -> Clip:
        """Return a clip with its video opened; FileNotFoundError if it has changed or may not be served."""
        with self._lock, _readable(self.index):
            search_index = self._current()
            clip = search_index.catalogue.clips([number]).get(number) if number < 2**63 else None
            state = clip and search_index.catalogue.file(clip.path)
            if state is None:
                raise FileNotFoundError('no such clip')
            folder = search_index.videos
        file = open_served(folder, clip.path, state, self.follow_links)
        return Clip(file, os.path.join(folder, clip.path), clip.start, clip.end)

    def status(self) -> Status:
        """Return the current content of the index. The catalog is read again only if it has changed."""
        with self._lock, _readable(self.index):
            search_index = self._current()
            found = os.stat(self.index / CATALOGUE)
            stamp = found.st_ino, found.st_mtime_ns, found.st_size
            if self._status is None or self._status[0] != stamp:
                files = search_index.catalogue.files()
                failed = [(name, state.error) for name, state in files.items() if state.error is not None]
                waiting = search_index.catalogue.num_changes()
                status = Status(
                    clips=len(search_index.vectors), files=len(files) - len(failed), failed=failed, waiting=waiting,
                    settings=dict(search_index.settings), videos=str(search_index.videos),
                    backend=search_index.backend['type'].split('.')[-1].removesuffix('Index'),
                    changed=datetime.fromtimestamp(found.st_mtime))
                self._status = stamp, status
            return self._status[1]

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            self.searcher.close_index(self.index)

    def _current(self) -> SearchIndex:
        """Return the open index, reopened if it has changed or was replaced."""
        search_index = self.searcher.open_index(self.index)
        if search_index.vectors is None:
            raise ValueError(f'{self.index} contains extracted features, not an index')
        search_index.check(self.prompt_set.settings)
        return search_index


def open_collections(indexes: Mapping[str, str | Path], device: str = 'cpu', timeout: float = 60.,
                     follow_links: bool = False, sources: Mapping[str, IndexSource] | None = None) -> list[Collection]:
    """Open indexes, by name, with the prompts that each was made with. Indexes on the same CLIP share it.

    Results of :func:`index_source` are used if they are already known. Decoding processes are started.

    Raises:
        FileNotFoundError: An index, or something it was made with, is missing.
        IndexMismatchError: Something an index was made with has changed.
        CheckpointError: A checkpoint can't be read, or is for another CLIP.
    """
    collections: list[Collection] = []
    for name, index in indexes.items():
        source, collection = sources[name] if sources else index_source(index), None
        for searcher in dict.fromkeys(other.searcher for other in collections):
            collection = collection or _share(name, index, source, searcher)
        if collection is None:
            searcher = VideoSearcher.from_index(index, source=source, device=device, num_workers=1, timeout=timeout)
            collection = Collection(name, index, searcher, searcher.prompts[0])
        collections.append(collection)
    for collection in collections:
        collection.follow_links = follow_links
        # before the server has threads and connections
        collection.prompt_set.loader.start()
    return collections


def index_source(index: str | Path) -> IndexSource:
    """Read the config and checkpoint that an index was made with, as data; see :func:`read_source`."""
    with _readable(index):
        return read_source(index)


def default_name(index: str | Path) -> str:
    """Return the default name for the prompts of an index: their method."""
    with contextlib.closing(Catalogue(Path(index) / CATALOGUE)) as catalogue, _readable(index):
        return catalogue.get('settings')['prompts'].split(',')[0]


def _share(name: str, index: str | Path, source: IndexSource, searcher: VideoSearcher) -> Collection | None:
    """Open a collection on a CLIP that is already loaded, if its prompts can be used there."""
    if source.checkpoint is None or source.cfg.model.backbone != searcher.cfg.model.backbone:
        return None
    try:
        searcher.add_prompts(name, source.checkpoint)
    except (ValueError, FileNotFoundError):  # it may work when loaded alone, or raise a clear error
        return None
    try:
        return Collection(name, index, searcher, name)
    except IndexMismatchError:
        searcher.remove_prompts(name)
        searcher.close_index(index)
        return None


@contextlib.contextmanager
def _readable(index: str | Path) -> Iterator[None]:
    """Convert errors caused by unexpected types in an index to an error that says the index is damaged."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as e:
        raise ValueError(f'the index {index} is damaged: {one_line(e)}') from e
