"""A folder of videos into an index: what is new, changed and gone."""
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.utils.look_ahead import look_ahead

from .catalogue import FileState
from .gallery import Gallery
from .windows import cut_windows

VIDEO_SUFFIXES = frozenset(('.3gp', '.asf', '.avi', '.flv', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg',
                            '.mts', '.ogv', '.ts', '.webm', '.wmv'))


class ClipLoader(Protocol):
    """What reads videos; calls come from several threads."""

    def duration(self, path: str) -> float:
        """Of a video, in seconds."""

    def load(self, path: str, clips: Sequence[tuple[float, float] | None]) -> tuple[Tensor, list[int]]:
        """Frames of clips, uint8 [n, F, 3, H, W], and how many of each clip's are no padding; None: the whole video."""


@dataclass
class IndexReport:
    """What indexing did.

    Attributes:
        added (int): Files that are new in the index.
        changed (int): Files whose content was another.
        removed (int): Files that are gone.
        unchanged (int): Files that are as they were.
        encoded (int): Clips that were encoded; others were known by their content.
        clips (int): Clips in the index now.
        failed (list[tuple[str, str]]): Files that can't be read, and why.
    """
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    encoded: int = 0
    clips: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(eq=False)
class _File:
    """A file on its way into the index."""
    path: str
    state: FileState
    clips: list[tuple[float, float]] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)


def index_folder(gallery: Gallery,
                 loader: ClipLoader,
                 encode: Callable[[Tensor, list[int]], np.ndarray],
                 batch_size: int = 32,
                 num_workers: int = 2,
                 progress: Callable[[int, int, str], None] = lambda done, total, what: None,
                 shard: tuple[int, int] = (0, 1)) -> IndexReport:
    """Bring an index up to date with its folder of videos.

    Files are compared by size and time, then by a hash of their content; content that is known under another name is
    not encoded again. Every batch is kept at once: killed at any moment, the next call goes on.

    Args:
        gallery (Gallery): The index.
        loader (ClipLoader): Reads videos.
        encode (Callable): Frames uint8 [n, F, 3, H, W] and how many of each clip's are real -> float32 [n, D].
        batch_size (int): Clips that are encoded together. Defaults to 32.
        num_workers (int): Videos that are read at the same time. Defaults to 2.
        progress (Callable): Is told how many of how many files are done, and what goes on.
        shard (tuple[int, int]): Which of how many parts of the folder; a file's name says in which it is. Defaults to
            all of it.

    Returns:
        IndexReport: What was done.

    Raises:
        ValueError: No videos in the folder; the index stays as it is.
        BlockingIOError: Another process is at it.
    """
    with gallery.locked():
        found, unreadable = find_videos(gallery.videos)
        if not found:
            raise ValueError(f'no videos in {gallery.videos} (nothing was changed)')
        found = {path: state for path, state in found.items() if shard_of(path, shard[1]) == shard[0]}
        gallery.repair()
        gallery.finished(False)
        run = _Run(gallery, loader, encode, batch_size, num_workers, found, progress)
        run.process()
        run.remove_others(dict(unreadable))
        progress(len(found), len(found), 'writing the index')
        gallery.synchronize()
        gallery.finished(True)
        run.report.clips = gallery.catalogue.num_clips()
        run.report.failed = sorted([*run.report.failed, *unreadable])
        return run.report


def find_videos(folder: str | Path) -> tuple[dict[str, FileState], list[tuple[str, str]]]:
    """Files that are videos by their names, in a folder and all below it.

    Args:
        folder (str | Path): The folder.

    Returns:
        tuple[dict[str, FileState], list[tuple[str, str]]]: Size and time of each by its path below the folder, sorted,
        and the folders (paths below it) that can't be read with the reason.

    Raises:
        OSError: The folder itself can't be read.
    """
    folder = Path(folder)
    os.listdir(folder)  # os.walk is silent
    found, unreadable = {}, []
    for root, folders, names in os.walk(folder, onerror=lambda e: unreadable.append((e.filename, e.strerror))):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
                try:
                    stat = os.stat(path)
                    state = FileState(stat.st_size, stat.st_mtime_ns, None, None)
                except OSError:  # a link to nothing; reading it will say so
                    state = FileState(None, None, None, None)
                found[os.path.relpath(path, folder)] = state
    return dict(sorted(found.items())), [(os.path.relpath(path, folder), why) for path, why in unreadable]


def shard_of(path: str, count: int) -> int:
    """In which of so many parts of a collection a file is, by its path below the folder."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), 'big') % count


def hash_file(path: str | Path) -> str:
    """Hash of a file's content, 32 hexadecimal digits."""
    with open(path, 'rb') as file:
        digest = hashlib.blake2b(digest_size=16)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Run:
    """One call of :func:`index_folder`. Threads look at files and read them; all else is done in the caller's."""

    def __init__(self, gallery: Gallery, loader: ClipLoader, encode: Callable, batch_size: int, num_workers: int,
                 found: dict[str, FileState], progress: Callable) -> None:
        self.gallery, self.catalogue, self.loader, self.encode = gallery, gallery.catalogue, loader, encode
        self.batch_size, self.num_workers = batch_size, num_workers
        self.found, self.progress = found, progress
        self.before = self.catalogue.files()
        self.report = IndexReport()
        self.done = 0

    def process(self) -> None:
        """Index the files that were found."""
        batch = []  # (file, frames [F, 3, H, W], how many are real)
        with ThreadPoolExecutor(self.num_workers) as pool:
            try:
                for (file, _), loaded in look_ahead(pool, self._load, self._parts(pool), 2 * self.num_workers):
                    if file.state.error:
                        continue  # another part of it has failed
                    if isinstance(loaded, str):
                        self._fail(file, loaded)
                        batch = [item for item in batch if item[0] is not file]
                        continue
                    batch += [(file, *clip) for clip in zip(*loaded)]
                    while len(batch) >= self.batch_size:
                        self._keep(batch[:self.batch_size])
                        batch = batch[self.batch_size:]
                if batch:
                    self._keep(batch)
            finally:
                pool.shutdown(cancel_futures=True)

    def remove_others(self, unreadable: Iterable[str]) -> None:
        """Forget files that are gone; those in folders that can't be read now may still be there."""
        hidden = tuple(folder + os.sep for folder in unreadable)
        gone = [path for path in self.before if path not in self.found and not path.startswith(hidden)]
        with self.catalogue.transaction():
            for path in gone:
                self.catalogue.remove_file(path)
        self.report.removed = sum(self.before[path].error is None for path in gone)

    # -- stages, each fed by the one before it ------------------------------------------------------------------------
    def _new_files(self, pool: ThreadPoolExecutor) -> Iterator[_File]:
        """Files that have to be read; what needs no reading is done with here."""
        todo = []
        for path, state in self.found.items():
            known = self.before.get(path)  # what could not be read is tried again
            if known is not None and known.error is None and known[:2] == state[:2]:
                self.report.unchanged += 1
                self._tell(path)
            else:
                todo.append(path)
        for path, (state, may_be_there) in look_ahead(pool, self._look, todo, 4 * self.num_workers):
            known = self.before.get(path)
            if state.error and may_be_there and known is not None and known.error is None:
                self.report.failed.append((path, state.error))  # what is known of it stays
                self._tell(path)
            elif state.error:
                self._fail(_File(path, state), state.error)
            elif known is not None and known.hash == state.hash and known.error is None:
                with self.catalogue.transaction():
                    self.catalogue.touch_file(path, state)
                self.report.unchanged += 1
                self._tell(path)
            elif (same := self.catalogue.clips_of_content(state.hash)) is not None:
                self._put([_File(path, state, *same)])
            else:
                yield _File(path, state)

    def _parts(self, pool: ThreadPoolExecutor) -> Iterator[tuple[_File, list]]:
        """Files with some of their clips; None is a whole video."""
        for file, duration in look_ahead(pool, self._measure, self._new_files(pool), 2 * self.num_workers):
            if isinstance(duration, str):
                self._fail(file, duration)
                continue
            file.clips = cut_windows(duration, self.gallery.settings['window'], self.gallery.settings['stride'])
            clips = file.clips if len(file.clips) > 1 else [None]
            for first in range(0, len(clips), self.batch_size):
                yield file, clips[first:first + self.batch_size]

    # -- in threads ---------------------------------------------------------------------------------------------------
    def _full(self, path: str) -> str:
        return os.path.join(self.gallery.videos, path)

    def _look(self, path: str) -> tuple[FileState, bool]:
        """A file's state; and, of one that can't be read, whether it may be there all the same (no permission)."""
        try:
            stat = os.stat(self._full(path))
            return FileState(stat.st_size, stat.st_mtime_ns, hash_file(self._full(path)), None), True
        except OSError as e:
            return FileState(None, None, None, e.strerror or str(e)), not isinstance(e, FileNotFoundError)

    def _measure(self, file: _File) -> float | str:
        try:
            return self.loader.duration(self._full(file.path))
        except VideoDecodeError as e:
            return e.reason

    def _load(self, part: tuple[_File, list]) -> tuple[Tensor, list[int]] | str:
        try:
            return self.loader.load(self._full(part[0].path), part[1])
        except VideoDecodeError as e:
            return e.reason

    # -- into the catalogue -------------------------------------------------------------------------------------------
    def _keep(self, batch: list[tuple[_File, Tensor, int]]) -> None:
        """Encode clips; files of which these were the last ones go into the catalogue."""
        files, frames, real = zip(*batch)
        for file, vector in zip(files, self.encode(torch.stack(frames), list(real)), strict=True):
            file.vectors.append(vector)
        self.report.encoded += len(batch)
        self._put([file for file in dict.fromkeys(files) if len(file.vectors) == len(file.clips)])

    def _put(self, files: list[_File]) -> None:
        with self.catalogue.transaction():
            for file in files:
                self.catalogue.put_file(file.path, file.state, file.clips, file.vectors)
        for file in files:
            known = self.before.get(file.path)
            if known is None or known.error is not None:
                self.report.added += 1
            else:
                self.report.changed += 1
            self._tell(file.path)

    def _fail(self, file: _File, reason: str) -> None:
        file.state = file.state._replace(error=reason)
        with self.catalogue.transaction():
            self.catalogue.put_file(file.path, file.state)
        self.report.failed.append((file.path, reason))
        self._tell(file.path)

    def _tell(self, path: str) -> None:
        self.done += 1
        self.progress(self.done, len(self.found), path)
