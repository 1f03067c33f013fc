"""An index and the prompts it was made with, as used by the search page."""
import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mmengine.config import Config

from vop_mm.utils.cli import one_line

from ..catalogue import Catalogue
from ..place import name_of_video
from ..prompt_set import PromptSet, read_source
from ..search_index import CATALOGUE, IndexMismatchError, SearchIndex
from ..vectors.vector_index import VectorIndex
from ..video_searcher import RankedText, VideoSearcher, check_query
from .served import open_served


@dataclass(frozen=True)
class Found:
    """A moment found by a search.

    Attributes:
        number (int): Number of the clip in its index, used in the page's addresses.
        name (str): Path of the video relative to the video folder.
        path (str): Path of the video.
        score (float): Score from the model's head.
        start (float): Start of the moment in seconds.
        end (float): End of the moment in seconds.
        version (str): Identifies the file's content; changes with it.
    """
    number: int
    name: str
    path: str
    score: float
    start: float
    end: float
    version: str


@dataclass(frozen=True)
class Clip:
    """A clip of an index with its video opened.

    Attributes:
        file (BinaryIO): The open video, to be closed by the caller.
        path (str): Path that it was opened with.
        start (float): Start of the moment in seconds.
        end (float): End of the moment in seconds.
    """
    file: BinaryIO
    path: str
    start: float
    end: float


@dataclass(frozen=True)
class Status:
    """Content of an index.

    Attributes:
        clips (int): Number of searchable moments.
        files (int): Number of videos that were read.
        failed (list[tuple[str, str]]): Files that can't be read, and why.
        waiting (int): Number of indexed clips that are not searchable yet.
        settings (dict): Settings that the index was made with.
        videos (str): Folder of the videos.
        backend (str): Name of the vector index.
        changed (datetime): Time of the last change.
    """
    clips: int
    files: int
    failed: list[tuple[str, str]]
    waiting: int
    settings: dict
    videos: str
    backend: str
    changed: datetime


class Collection:
    """Videos that can be searched with one prompt set. Thread-safe.

    Args:
        name (str): Display name of the prompt set.
        index (str | Path): Folder of the index.
        retriever (VideoSearcher): Retriever with the prompts.
        prompts (str): Name of the prompts in the retriever.

    Attributes:
        follow_links (bool): Also serve videos outside of the folder that links lead to; False by default.

    Raises:
        FileNotFoundError: The index is missing.
        IndexMismatchError: The index was made with another CLIP or other prompts.
        ValueError: The index is damaged.
    """

    def __init__(self, name: str, index: str | Path, retriever: VideoSearcher, prompts: str) -> None:
        self.name, self.index, self.follow_links = name, Path(index), False
        self.retriever, self.prompts = retriever, prompts
        self._gallery: SearchIndex | None = None
        self._opened = self._status = self._texts = None  # each with what it was made from
        self._lock, self._texts_lock = threading.RLock(), threading.Lock()
        with _readable(self.index):
            self._current()

    @property
    def prompt_set(self) -> PromptSet:
        """The loaded prompt set."""
        return self.retriever.prompt_set(self.prompts)

    def search(self, query: str, k: int = 8, merge: bool = True) -> list[Found]:
        """Find moments that match a text; see :meth:`VideoSearcher.search`, also for errors."""
        check_query(query)
        vector = self.prompt_set.encode_text([query])[0]  # the page itself reports unknown words
        return self.nearest(vector, k, merge, self.prompt_set.scorer(query))

    def unknown_words(self, query: str) -> list[str]:
        """Return the words of a query that are not in the model's vocabulary."""
        return self.retriever.unknown_words(query, self.prompts)

    def nearest(self, vector: np.ndarray, k: int = 8, merge: bool = True,
                score: Callable | None = None) -> list[Found]:
        """Find the moments nearest to an embedding.

        Args:
            vector (np.ndarray): float32 [D], unit norm; or the result of :meth:`encode_video`.
            k (int): Number of moments. Defaults to 8.
            merge (bool): Return only the best moment of each video. Defaults to True.
            score (Callable, optional): Function to re-rank them; see :meth:`SearchIndex.search`.

        Returns:
            list[Found]: Moments, best first.
        """
        with self._lock, _readable(self.index):
            gallery = self._current()
            found = []
            for hit in gallery.search(vector[:gallery.settings['dim']], k, merge, score):
                name = name_of_video(gallery.videos, hit.path)
                number, state = gallery.catalogue.number(name, hit.start), gallery.catalogue.file(name)
                if number is not None and state is not None:  # otherwise removed during the search
                    version = str(state.hash or '')[:12]
                    found.append(Found(_whole_number(number), name, hit.path, _number(hit.score), _number(hit.start),
                                       _number(hit.end), version))
            return found

    def encode_video(self, path: str | Path) -> np.ndarray:
        """Encode a whole video, which is decoded in another process.

        Returns:
            np.ndarray: float32 [D], or [D + kept] if the head is not a cosine.

        Raises:
            VideoDecodeError: The video can't be read, or not in time.
        """
        return self.retriever.keep_video(path, self.prompts)[0]

    def rank_texts(self, vector: np.ndarray, texts: Sequence[str], k: int = 5) -> list[RankedText]:
        """Rank texts by how well they match a video from :meth:`encode_video`; return the best. Encodes texts once."""
        with self._texts_lock:
            if self._texts is None or self._texts[0] != tuple(texts):
                self._texts = tuple(texts), self.retriever.keep_text(texts, self.prompts)
            scores = self.prompt_set.score_one(self._texts[1], vector)
        return [RankedText(texts[i], float(scores[i])) for i in np.argsort(-scores, kind='stable')[:k]]

    def clip(self, number: int) -> Clip:
        """Return a clip with its video opened, if the video is unchanged since indexing and may be served.

        Args:
            number (int): Number of the clip.

        Returns:
            Clip: The clip, with its video open.

        Raises:
            FileNotFoundError: The index has no such clip, or its file is gone, was replaced, is not a video, or is
                outside of the folder.
        """
        with self._lock, _readable(self.index):
            gallery = self._current()
            clip = gallery.catalogue.clips([number]).get(number) if number < 2**63 else None
            state = clip and gallery.catalogue.file(clip.path)
            if state is None:
                raise FileNotFoundError('no such clip')
            start, end = _number(clip.start), _number(clip.end)
            folder = str(gallery.videos)
        file = open_served(folder, clip.path, state, self.follow_links)
        return Clip(file, os.path.join(folder, clip.path), start, end)

    def status(self) -> Status:
        """Return the current content of the index. The catalog is read again only if it has changed.

        Raises:
            FileNotFoundError: The index is gone.
            ValueError: The index is damaged.
        """
        with self._lock, _readable(self.index):
            gallery = self._current()
            stamp = _stamp(self.index)
            if self._status is None or self._status[0] != stamp:
                files = gallery.catalogue.files()
                failed = [(name, state.error) for name, state in files.items() if state.error is not None]
                waiting = gallery.catalogue.num_changes()
                status = Status(
                    clips=len(gallery.vectors), files=len(files) - len(failed), failed=failed, waiting=waiting,
                    settings=dict(gallery.settings), videos=str(gallery.videos),
                    backend=gallery.backend['type'].split('.')[-1].removesuffix('Index'),
                    changed=datetime.fromtimestamp(stamp[1] / 1e9))
                self._status = stamp, status
            return self._status[1]

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            if self._gallery is not None:
                self._gallery.close()
            self._gallery = None

    def _current(self) -> SearchIndex:
        """Return the open index, reopened if it has changed or was replaced."""
        known = self._gallery
        if known is None or self._opened != (_stamp(self.index) or [None])[0] or not known.is_current():
            self.close()
            opened = _stamp(self.index)
            gallery = SearchIndex(self.index)
            try:
                if not isinstance(gallery.vectors, VectorIndex):
                    raise ValueError(f'{self.index} holds extracted features and no index')
                gallery.check(self.prompt_set.settings)
            except BaseException:
                gallery.close()
                raise
            self._gallery, self._opened = gallery, opened and opened[0]
        return self._gallery


def open_collections(indexes: Mapping[str, str | Path], device: str = 'cpu', timeout: float = 60.,
                     follow_links: bool = False) -> list[Collection]:
    """Open indexes with the prompts that each was made with. Indexes on the same CLIP share it.

    Args:
        indexes (Mapping[str, str | Path]): Index folders by the name of their prompts.
        device (str): Device of the models. Defaults to ``'cpu'``.
        timeout (float): Time limit for decoding a video in seconds. Defaults to 60.
        follow_links (bool): Also serve videos outside of their folder that links lead to. Defaults to False.

    Returns:
        list[Collection]: Collections in the given order, with running decoding processes.

    Raises:
        FileNotFoundError: An index, or something it was made with, is missing.
        IndexMismatchError: Something an index was made with has changed.
        CheckpointError: A checkpoint can't be read, or is for another CLIP.
    """
    collections: list[Collection] = []
    for name, index in indexes.items():
        collection = None
        for retriever in dict.fromkeys(other.retriever for other in collections):
            collection = collection or _share(name, index, retriever)
        if collection is None:
            retriever = VideoSearcher.from_index(index, device=device, num_workers=1, timeout=timeout)
            collection = Collection(name, index, retriever, retriever.prompts[0])
        collections.append(collection)
    for collection in collections:
        collection.follow_links = follow_links
        # before the server has threads and connections
        collection.prompt_set.loader.start()
    return collections


def default_name(index: str | Path) -> str:
    """Return the default name for the prompts of an index: their method."""
    with contextlib.closing(Catalogue(Path(index) / CATALOGUE)) as catalogue, _readable(index):
        return catalogue.get('settings')['prompts'].split(',')[0]


def index_config(index: str | Path) -> Config:
    """Read the config that an index was made with, as data.

    Raises:
        ValueError: The index doesn't contain it.
    """
    with _readable(index):
        return read_source(index)[0]


def _share(name: str, index: str | Path, retriever: VideoSearcher) -> Collection | None:
    """Open a collection on a CLIP that is already loaded, if its prompts can be used there."""
    cfg, checkpoint = read_source(index)
    if checkpoint is None or cfg.model.backbone != retriever.cfg.model.backbone:
        return None
    try:
        retriever.add_prompts(name, checkpoint)
    except (ValueError, FileNotFoundError):  # it may work when loaded alone, or raise a clear error
        return None
    try:
        return Collection(name, index, retriever, name)
    except IndexMismatchError:
        retriever.remove_prompts(name)
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


def _number(value: Any) -> float:
    """Check for a finite number; SQLite stores any type in any column."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError('something else stands in the place of a number')
    return float(value)


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError('something else stands in the place of a number')
    return value


def _stamp(index: Path) -> tuple[int, int, int] | None:
    """Return inode, modification time and size of the catalog, to notice a changed index."""
    try:
        found = os.stat(index / CATALOGUE)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
