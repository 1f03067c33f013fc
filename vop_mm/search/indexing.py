"""Update an index with a folder of videos: handle new, changed and removed files."""
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.video_files import NOT_REGULAR, describe_left_out, find_videos
from vop_mm.utils.map_ahead import map_ahead
from vop_mm.utils.paths import open_regular
from vop_mm.utils.stalls import call_unless_stalled

from .catalogue import FileState
from .clip_loader import ClipLoader
from .search_index import SearchIndex
from .vectors.vector_index import check_vectors
from .windows import MAX_WINDOWS, cut_windows

CHANGED = 'changed while it was being indexed: run indexing again'


@dataclass(frozen=True)
class IndexOptions:
    """Options for indexing a folder."""
    window: float | None = None  # length in seconds; longer videos are cut. None: 30, or the index's own
    stride: float | None = None  # seconds between starts of windows. None: half a window, or the index's own
    max_windows: int = MAX_WINDOWS  # per file; files with more are not read
    backend_args: dict | None = None  # for reading remote videos; not stored in the index
    progress: bool = False  # show a progress bar
    batch_size: int = 32  # clips per batch
    num_workers: int = 2  # videos read in parallel
    shard: tuple[int, int] = (0, 1)  # part of the folder to index, and number of parts; depends on a file's name


@dataclass
class IndexReport:
    """Result of indexing."""
    added: int = 0  # new files
    changed: int = 0  # files with changed content
    removed: int = 0
    unchanged: int = 0
    encoded: int = 0  # clips; others were known by their content
    clips: int = 0  # in the index
    failed: list[tuple[str, str]] = field(default_factory=list)  # files that can't be read, or changed, and why
    # files of which some windows can't be read, with their number and the reason; the other windows are in the index
    partly: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # other files, by the reason why they are not videos


@dataclass(eq=False)
class _File:
    """A file being indexed."""
    path: str
    state: FileState
    identity: tuple | None = None
    clips: list[tuple[float, float]] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    whole: bool = False  # the only clip is the whole video
    unread: dict[tuple[float, float], str] = field(default_factory=dict)  # clips that can't be read, and why


def hash_file(file: BinaryIO, alive: Callable[[], None] = lambda: None) -> str:
    """Hash an open file's content to 32 hexadecimal digits; ``alive`` is called after each read."""
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(1 << 20):
        alive()
        digest.update(block)
    return digest.hexdigest()


def _identity(path: str, status: os.stat_result | None = None) -> tuple:
    """Return values that change when a file, open or not, or the link to it, is modified or replaced.

    ``ctime`` can't be set back, so it also reveals that another file was temporarily in its place.
    """
    link, status = os.lstat(path), status or os.stat(path)
    return (link.st_dev, link.st_ino, link.st_ctime_ns,
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read_state(path: str, alive: Callable[[], None]) -> tuple[FileState, tuple | None, bool]:
    """Return state and hash of a file, its identity, and True because it exists."""
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        identity = _identity(path, status)
        digest = hash_file(file, alive)
        if identity != _identity(path, os.fstat(file.fileno())):
            return FileState(None, None, None, CHANGED), None, True
    return FileState(status.st_size, status.st_mtime_ns, digest, None), identity, True


class Run:
    """One update of an index. Threads inspect and read files; everything else runs in the caller's thread.

    ``progress`` is called with the number of finished files, the total, and the current item.
    """

    def __init__(self, search_index: SearchIndex, loader: ClipLoader, encode: Callable, options: IndexOptions,
                 progress: Callable[[int, int, str], None]) -> None:
        self.search_index, self.catalogue = search_index, search_index.catalogue
        self.loader, self.encode = loader, encode
        self.options, self.progress, self.report, self.done = options, progress, IndexReport(), 0
        self.ahead = 2 * options.num_workers  # number of items that threads work on ahead of their use
        self.found: dict[str, FileState] = {}

    def run(self) -> IndexReport:
        """Update the index; see :func:`~vop_mm.search.index_folder`."""
        with self.search_index.locked():
            unreadable = self.list_files()
            self.search_index.repair()
            self.search_index.set_finished(False)
            self.process()
            self.remove_others(path for path, why in unreadable.items() if why != NOT_REGULAR)
            self.progress(len(self.found), len(self.found), 'writing the index')
            self.search_index.synchronize()
            self.search_index.set_finished(True)
            self.report.clips = self.catalogue.num_clips()
            self.report.failed += [item for item in unreadable.items() if self.is_mine(item[0])]
            self.report.failed.sort()
            return self.report

    def is_mine(self, path: str) -> bool:
        """Return True if a file belongs, by its relative path, to the part of the collection being indexed."""
        number, count = self.options.shard
        return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), 'big') % count == number

    def list_files(self) -> dict[str, str]:
        """List the files; return unreadable ones of all parts, with the reason."""
        videos = self.search_index.videos
        listed = find_videos(videos)
        if not listed.videos:
            raise ValueError(f'no videos in {videos}, the index is unchanged; '
                             f'{describe_left_out(listed.left_out) or "the folder is empty"}')
        unreadable = listed.unreadable()
        self.report.left_out = {why: paths for why, paths in listed.left_out.items()
                                if unreadable.keys().isdisjoint(paths)}
        for path in filter(self.is_mine, listed.videos):
            self.found[path] = FileState(None, None, None, None)
            with suppress(OSError):  # reading it will report the reason
                status = os.stat(self._full(path))
                self.found[path] = FileState(status.st_size, status.st_mtime_ns, None, None)
        return unreadable

    def process(self) -> None:
        """Index the files in ``found``."""
        self.before = self.catalogue.files()
        batch = []  # (file, frames [F, 3, H, W], number of real frames)
        with ThreadPoolExecutor(self.options.num_workers) as pool:
            try:
                for (file, clips), loaded in map_ahead(pool, self._load, self._parts(pool), self.ahead):
                    if file.state.error:
                        continue  # another part of the file has failed
                    if isinstance(loaded, str):
                        self._fail(file, loaded)
                        batch = [item for item in batch if item[0] is not file]
                        continue
                    for clip, found in zip(clips, loaded, strict=True):
                        if isinstance(found, VideoDecodeError):
                            file.unread[clip] = found.reason
                        else:
                            batch.append((file, *found))
                    self._finish([file])  # nothing of its last part could be read
                    while len(batch) >= self.options.batch_size:
                        self._keep(batch[:self.options.batch_size])
                        batch = batch[self.options.batch_size:]
                if batch:
                    self._keep(batch)
            finally:
                pool.shutdown(cancel_futures=True)

    def remove_others(self, unreadable: Iterable[str]) -> None:
        """Remove missing files, but keep those at or below paths that can't be read now, as they may still exist."""
        hidden = set(unreadable)
        gone = [path for path in self.before if path not in self.found
                and hidden.isdisjoint((path, *map(str, PurePosixPath(path).parents)))]
        with self.catalogue.transaction():
            for path in gone:
                self.catalogue.remove_file(path)
        self.report.removed = sum(self.before[path].error is None for path in gone)

    # -- stages, each consuming the previous one ----------------------------------------------------------------------
    def _new_files(self, pool: ThreadPoolExecutor) -> Iterator[_File]:
        """Yield the files that must be read; all others are handled here."""
        todo = []
        for path, state in self.found.items():
            known = self.before.get(path)  # unreadable files are tried again
            if known is not None and known.error is None and known[:2] == state[:2]:
                self.report.unchanged += 1
                self._count(path)
            else:
                todo.append(path)
        for path, (state, identity, may_be_there) in map_ahead(pool, self._look, todo, 2 * self.ahead):
            known = self.before.get(path)
            is_known = known is not None and known.error is None
            if state.error == CHANGED or state.error and may_be_there and is_known:
                self._keep_known(path, state.error)
            elif state.error:
                self._fail(_File(path, state), state.error)
            elif is_known and known.hash == state.hash:
                with self.catalogue.transaction():
                    self.catalogue.touch_file(path, state)
                self.report.unchanged += 1
                self._count(path)
            elif (same := self.catalogue.clips_of_content(state.hash)) is not None:
                self._put([_File(path, state, identity, *same)])
            else:
                yield _File(path, state, identity)

    def _parts(self, pool: ThreadPoolExecutor) -> Iterator[tuple[_File, list]]:
        """Yield files with some of their clips."""
        for file, duration in map_ahead(pool, self._measure, self._new_files(pool), self.ahead):
            try:
                if isinstance(duration, str):
                    raise ValueError(duration)
                file.clips = self._windows(file.path, duration)
            except ValueError as e:
                self._fail(file, str(e))
                continue
            file.whole = file.clips == [(0., float(duration))]
            for first in range(0, len(file.clips), self.options.batch_size):
                yield file, file.clips[first:first + self.options.batch_size]

    # -- in threads ---------------------------------------------------------------------------------------------------
    def _windows(self, path: str, duration: float) -> list[tuple[float, float]]:
        settings = self.search_index.settings
        return cut_windows(duration, settings.get('window'), settings.get('stride'), self.options.max_windows)

    def _full(self, path: str) -> str:
        return os.path.join(self.search_index.videos, path)

    def _look(self, path: str) -> tuple[FileState, tuple | None, bool]:
        """Return a file's state and identity, and True if it may exist although unreadable (such as no permission)."""
        try:
            return call_unless_stalled(lambda alive: _read_state(self._full(path), alive))
        except OSError as e:
            gone = isinstance(e, (FileNotFoundError, IsADirectoryError)) or e.errno == errno.EINVAL
            return FileState(None, None, None, e.strerror or str(e)), None, not gone

    def _measure(self, file: _File) -> float | str:
        return self._ask(file, self.loader.duration)

    def _load(self, part: tuple[_File, list]) -> list | str:
        file, clips = part
        return self._ask(file, self.loader.load_clips, [None] if file.whole else clips)

    def _ask(self, file: _File, call: Callable, *args):
        """Call a function on a file; return its result, or why it failed. Checks that the content is unchanged."""
        full = self._full(file.path)
        try:
            result = call(full, *args)
        except VideoDecodeError as e:
            result = e.reason
        try:
            return result if _identity(full) == file.identity else CHANGED
        except OSError:
            return CHANGED

    # -- writing to the catalog ---------------------------------------------------------------------------------------
    def _keep(self, batch: list[tuple[_File, Tensor, int]]) -> None:
        """Encode clips, and store the files that are complete."""
        files, frames, num_frames = zip(*batch)
        vectors = self.encode(torch.stack(frames), list(num_frames))
        check_vectors(vectors[:, :self.search_index.settings['dim']], self.search_index.settings['dim'])
        for file, vector in zip(files, vectors, strict=True):
            file.vectors.append(vector)
        self.report.encoded += len(batch)
        self._finish(dict.fromkeys(files))

    def _finish(self, files: Iterable[_File]) -> None:
        """Store the files of which all clips were read or tried."""
        whole = [file for file in files if len(file.vectors) + len(file.unread) == len(file.clips)]
        for file in whole:
            if file.unread:
                why = next(iter(file.unread.values()))
                if len(file.clips) > 1:
                    why = f"{len(file.unread)} of {len(file.clips)} windows can't be read: {why}"
                if file.vectors:
                    self.report.partly.append((file.path, why))
                else:
                    self._fail(file, why)
                file.clips = [clip for clip in file.clips if clip not in file.unread]
        self._put([file for file in whole if file.vectors])

    def _put(self, files: list[_File]) -> None:
        with self.catalogue.transaction():
            for file in files:
                self.catalogue.put_file(file.path, file.state, file.clips, file.vectors)
        for file in files:
            known = self.before.get(file.path)
            is_new = known is None or known.error is not None
            self.report.added += is_new
            self.report.changed += not is_new
            self._count(file.path)

    def _fail(self, file: _File, reason: str) -> None:
        reason = reason.encode('utf-8', 'backslashreplace').decode()  # for names that are not UTF-8
        file.state = file.state._replace(error=reason)
        if reason != CHANGED:
            with self.catalogue.transaction():
                self.catalogue.put_file(file.path, file.state)
        self._keep_known(file.path, reason)

    def _keep_known(self, path: str, reason: str) -> None:
        """Report a file that failed; what the catalog has of it is kept."""
        self.report.failed.append((path, reason))
        self._count(path)

    def _count(self, path: str) -> None:
        self.done += 1
        self.progress(self.done, len(self.found), path)
