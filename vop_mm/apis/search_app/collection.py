"""An index and the prompts that it was made with, as the page asks them."""
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

from vop_mm.index import Catalogue, Gallery, IndexMismatchError
from vop_mm.index.gallery import CATALOGUE
from vop_mm.index.place import name_of_video
from vop_mm.index.vector_index import VectorIndex
from vop_mm.utils.cli import one_line

from ..prompt_set import PromptSet, read_source
from ..text_video_retriever import RankedText, TextVideoRetriever, check_query
from .served import open_served


@dataclass(frozen=True)
class Found:
    """A moment that was found.

    Attributes:
        number (int): Of the clip in its index; what the page asks for it by.
        name (str): The video's path below the folder of videos.
        path (str): The video.
        score (float): How well it fits the query, as the model's head says.
        start (float): Where the moment begins, in seconds.
        end (float): Where it ends.
        version (str): Changes with the file's content.
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
    """A clip of an index, its video opened.

    Attributes:
        file (BinaryIO): The video; whoever has asked closes it.
        path (str): What it was opened by.
        start (float): Where the moment begins, in seconds.
        end (float): Where it ends.
    """
    file: BinaryIO
    path: str
    start: float
    end: float


@dataclass(frozen=True)
class Status:
    """What an index holds.

    Attributes:
        clips (int): Moments that can be found.
        files (int): Videos that were read.
        failed (list[tuple[str, str]]): Files that can't be read, and why.
        waiting (int): Clips that are indexed and can't be found yet.
        settings (dict): What the index was made with.
        videos (str): Folder of the videos.
        backend (str): What looks vectors up.
        changed (datetime): When the index last changed.
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
    """Videos, searched with one set of prompts. Several threads may ask.

    Args:
        name (str): Of the set of prompts, for people.
        index (str | Path): Folder of the index.
        retriever (TextVideoRetriever): Has the prompts.
        prompts (str): Their name there.

    Attributes:
        follow_links (bool): Serve also videos that links in the folder lead to elsewhere; False at first.

    Raises:
        FileNotFoundError: There is no such index.
        IndexMismatchError: It was made with another CLIP or other prompts.
        ValueError: It is damaged.
    """

    def __init__(self, name: str, index: str | Path, retriever: TextVideoRetriever, prompts: str) -> None:
        self.name, self.index, self.follow_links = name, Path(index), False
        self.retriever, self.prompts = retriever, prompts
        self._gallery: Gallery | None = None
        self._opened = self._status = self._texts = None  # each with what it was made of
        self._lock, self._texts_lock = threading.RLock(), threading.Lock()
        with _readable(self.index):
            self._current()

    @property
    def prompt_set(self) -> PromptSet:
        """The prompts, loaded."""
        return self.retriever.prompt_set(self.prompts)

    def search(self, query: str, k: int = 8, merge: bool = True) -> list[Found]:
        """Moments that fit a text; as :meth:`TextVideoRetriever.search`, and raises what that does."""
        check_query(query)
        vector = self.prompt_set.encode_text([query])[0]  # the page itself says what is unknown
        return self.nearest(vector, k, merge, self.prompt_set.scorer(query))

    def unknown_words(self, query: str) -> list[str]:
        """Words of a query that the model's vocabulary lacks."""
        return self.retriever.unknown_words(query, self.prompts)

    def nearest(self, vector: np.ndarray, k: int = 8, merge: bool = True,
                score: Callable | None = None) -> list[Found]:
        """Moments nearest to an embedding.

        Args:
            vector (np.ndarray): float32 [D], unit norm; or what :meth:`encode_video` gives.
            k (int): How many. Defaults to 8.
            merge (bool): Of each video only its best moment. Defaults to True.
            score (Callable, optional): Re-ranks them; see :meth:`Gallery.search`.

        Returns:
            list[Found]: The best first.
        """
        with self._lock, _readable(self.index):
            gallery = self._current()
            found = []
            for hit in gallery.search(vector[:gallery.settings['dim']], k, merge, score):
                name = name_of_video(gallery.videos, hit.path)
                number, state = gallery.catalogue.number(name, hit.start), gallery.catalogue.file(name)
                if number is not None and state is not None:  # else it went while we were searching
                    version = str(state.hash or '')[:12]
                    found.append(Found(_whole_number(number), name, hit.path, _number(hit.score), _number(hit.start),
                                       _number(hit.end), version))
            return found

    def encode_video(self, path: str | Path) -> np.ndarray:
        """Embedding of a whole video, float32 [D], or where the head is no cosine [D + kept]; it is decoded in another
        process.

        Raises:
            VideoDecodeError: It can't be read, or not in time.
        """
        return self.retriever.keep_video(path, self.prompts)[0]

    def rank_texts(self, vector: np.ndarray, texts: Sequence[str], k: int = 5) -> list[RankedText]:
        """The texts that fit a video best, as :meth:`encode_video` gives it, in order. They are encoded once."""
        with self._texts_lock:
            if self._texts is None or self._texts[0] != tuple(texts):
                self._texts = tuple(texts), self.retriever.keep_text(texts, self.prompts)
            scores = self.prompt_set.score_one(self._texts[1], vector)
        return [RankedText(texts[i], float(scores[i])) for i in np.argsort(-scores, kind='stable')[:k]]

    def clip(self, number: int) -> Clip:
        """A clip with its video, if that is still the one that was indexed, and may be served.

        Args:
            number (int): Of the clip.

        Returns:
            Clip: Its video is open.

        Raises:
            FileNotFoundError: The index has no such clip; its file is gone or another one by now; it is no video, or
                lies elsewhere.
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
        """What the index holds now. The catalogue is read only when it has changed.

        Raises:
            FileNotFoundError: The index is gone.
            ValueError: It is damaged.
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
        """Let go of the index."""
        with self._lock:
            if self._gallery is not None:
                self._gallery.close()
            self._gallery = None

    def _current(self) -> Gallery:
        """The index, opened; again when it has changed or another one stands in its place."""
        known = self._gallery
        if known is None or self._opened != (_stamp(self.index) or [None])[0] or not known.is_current():
            self.close()
            opened = _stamp(self.index)
            gallery = Gallery(self.index)
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
    """Open indexes with the prompts that each was made with. Those on the same CLIP share it.

    Args:
        indexes (Mapping[str, str | Path]): Folders of indexes by the name of their prompts.
        device (str): Defaults to ``'cpu'``.
        timeout (float): Seconds that decoding a video may take. Defaults to 60.
        follow_links (bool): Serve also videos that links lead to elsewhere. Defaults to False.

    Returns:
        list[Collection]: In that order. Their decoding processes run.

    Raises:
        FileNotFoundError: There is no such index, or what it was made with is gone.
        IndexMismatchError: What it was made with has changed.
        CheckpointError: A checkpoint can't be read, or is of another CLIP.
    """
    collections: list[Collection] = []
    for name, index in indexes.items():
        collection = None
        for retriever in dict.fromkeys(other.retriever for other in collections):
            collection = collection or _share(name, index, retriever)
        if collection is None:
            retriever = TextVideoRetriever.from_index(index, device=device, num_workers=1, timeout=timeout)
            collection = Collection(name, index, retriever, retriever.prompts[0])
        collections.append(collection)
    for collection in collections:
        collection.follow_links = follow_links
        # before the server has threads and connections
        collection.prompt_set.loader.start()
    return collections


def default_name(index: str | Path) -> str:
    """What the prompts of an index are called where nobody says: by their method."""
    with contextlib.closing(Catalogue(Path(index) / CATALOGUE)) as catalogue, _readable(index):
        return catalogue.get('settings')['prompts'].split(',')[0]


def index_config(index: str | Path) -> Config:
    """The config that an index was made with, read as data.

    Raises:
        ValueError: It doesn't say.
    """
    with _readable(index):
        return read_source(index)[0]


def _share(name: str, index: str | Path, retriever: TextVideoRetriever) -> Collection | None:
    """The collection on a CLIP that is loaded, if its prompts can be used there."""
    cfg, checkpoint = read_source(index)
    if checkpoint is None or cfg.model.clip != retriever.cfg.model.clip:
        return None
    try:
        retriever.add_prompts(name, checkpoint)
    except (ValueError, FileNotFoundError):  # loaded alone it may work, or says what is wrong
        return None
    try:
        return Collection(name, index, retriever, name)
    except IndexMismatchError:
        retriever.remove_prompts(name)
        return None


@contextlib.contextmanager
def _readable(index: str | Path) -> Iterator[None]:
    """Say that an index is damaged, where what it holds is of other kinds than this project writes."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as e:
        raise ValueError(f'the index {index} is damaged: {one_line(e)}') from e


def _number(value: Any) -> float:
    """A finite number; SQLite keeps any kind of value in any column."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError('something else stands in the place of a number')
    return float(value)


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError('something else stands in the place of a number')
    return value


def _stamp(index: Path) -> tuple[int, int, int] | None:
    """What changes when an index does; which file it is, when it changed, and its size."""
    try:
        found = os.stat(index / CATALOGUE)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
