"""Index a folder of videos: handle new, changed and removed files."""
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.video_files import NOT_REGULAR, describe_left_out, find_videos
from vop_mm.datasets.video_source import VideoSource
from vop_mm.utils.look_ahead import look_ahead
from vop_mm.utils.paths import open_regular
from vop_mm.utils.stalls import call_unless_stalled

from .catalogue import FileState
from .search_index import SearchIndex
from .vectors.vector_index import check_vectors
from .windows import MAX_WINDOWS, cut_windows

CHANGED = 'changed while it was being indexed: it is left for the next time'


class ClipLoader(Protocol):
    """Interface of video loaders; must be thread-safe."""

    def duration(self, path: str) -> float:
        """Return the duration of a video in seconds."""

    def load_clips(self, path: str, clips: Sequence[tuple[float, float] | None]
                   ) -> list[tuple[Tensor, int] | VideoDecodeError]:
        """Return for each clip its frames, uint8 [F, 3, H, W], and the number of real frames, or why it can't be read.

        A clip of None is the whole video.
        """


@dataclass
class IndexReport:
    """Result of indexing.

    Attributes:
        added (int): Number of new files.
        changed (int): Number of files with changed content.
        removed (int): Number of removed files.
        unchanged (int): Number of unchanged files.
        encoded (int): Number of encoded clips; others were known by their content.
        clips (int): Total number of clips in the index.
        failed (list[tuple[str, str]]): Files that can't be read, or changed in the meantime, and why.
        partly (list[tuple[str, str]]): Files of which some windows can't be read, with their number and the reason; the
            other windows are in the index.
        left_out (dict[str, list[str]]): Other files in the folder, by the reason why they are not videos.
    """
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    encoded: int = 0
    clips: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    partly: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)


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


def index_folder(gallery: SearchIndex,
                 loader: ClipLoader,
                 encode: Callable[[Tensor, list[int]], np.ndarray],
                 batch_size: int = 32,
                 num_workers: int = 2,
                 progress: Callable[[int, int, str], None] = lambda done, total, what: None,
                 shard: tuple[int, int] = (0, 1),
                 max_windows: int = MAX_WINDOWS,
                 source: VideoSource | None = None) -> IndexReport:
    """Update an index with its videos.

    Files are compared by size and modification time, then by a hash of their content; remote files by size and tag
    (ETag, or modification time), and they are fetched if these are new or there is no tag. Content that is known under
    another name is not encoded again. Every batch is stored immediately: after an interruption, the next call
    continues. A file that changes between its hash and its last clip keeps its old index entry, so a vector always
    belongs to the hash stored with it.

    Args:
        gallery (SearchIndex): The index.
        loader (ClipLoader): Loader of videos.
        encode (Callable): Maps frames, uint8 [n, F, 3, H, W], and the number of real frames of each clip to vectors,
            float32 [n, D] or [n, D + kept] (see :meth:`Catalogue.put_file`).
        batch_size (int): Number of clips per batch. Defaults to 32.
        num_workers (int): Number of videos read in parallel. Defaults to 2.
        progress (Callable): Called with the number of finished files, the total, and the current item.
        shard (tuple[int, int]): Part of the folder to index, and number of parts; the part of a file depends on its
            name. Defaults to all of it.
        max_windows (int): Maximum number of windows per file. Defaults to 10000.
        source (VideoSource, optional): Source of remote videos. The index's own source is not used because its
            addresses can't be trusted.

    Returns:
        IndexReport: What was done.

    Raises:
        ValueError: There are no videos (the index is unchanged), or embeddings are not finite.
        VideoDecodeError: The remote files can't be listed.
        BlockingIOError: Another process is changing the index.
    """
    from .remote_indexing import RemoteRun  # it builds on the code below
    run = (Run if source is None else partial(RemoteRun, source))(gallery, loader, encode, batch_size, num_workers,
                                                                  max_windows, shard, progress)
    with gallery.locked():
        unreadable = run.look_around()
        gallery.repair()
        gallery.finished(False)
        run.process()
        run.remove_others(path for path, why in unreadable.items() if why != NOT_REGULAR)
        progress(len(run.found), len(run.found), 'writing the index')
        gallery.synchronize()
        gallery.finished(True)
        run.report.clips = gallery.catalogue.num_clips()
        run.report.failed = sorted([*run.report.failed, *(item for item in unreadable.items() if run.is_mine(item[0]))])
        return run.report


def _state_of(path: str) -> FileState:
    try:
        status = os.stat(path)
    except OSError:  # reading it will report the reason
        return FileState(None, None, None, None)
    return FileState(status.st_size, status.st_mtime_ns, None, None)


def shard_of(path: str, count: int) -> int:
    """Return the part of a collection that a file belongs to, by its relative path and the number of parts."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), 'big') % count


def _with_parents(path: str) -> list[str]:
    parts = path.split('/')
    return ['/'.join(parts[:count]) for count in range(1, len(parts) + 1)]


def hash_file(file: BinaryIO, alive: Callable[[], None] = lambda: None) -> str:
    """Hash an open file's content to 32 hexadecimal digits; ``alive`` is called after each read."""
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(1 << 20):
        alive()
        digest.update(block)
    return digest.hexdigest()


def _identity(path: str, status: os.stat_result | None = None) -> tuple:
    """Return values that change when a file, or the link to it, is modified or replaced.

    ``ctime`` can't be set back, so it also reveals that another file was temporarily in its place.

    Args:
        path (str): Path of the file.
        status (os.stat_result, optional): Status of the file if it is open.
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
    """One call of :func:`index_folder`. Threads inspect and read files; everything else runs in the caller's thread."""

    def __init__(self, gallery: SearchIndex, loader: ClipLoader, encode: Callable, batch_size: int, num_workers: int,
                 max_windows: int, shard: tuple[int, int], progress: Callable) -> None:
        self.gallery, self.catalogue, self.loader, self.encode = gallery, gallery.catalogue, loader, encode
        self.batch_size, self.num_workers, self.max_windows = batch_size, num_workers, max_windows
        self.found: dict[str, FileState] = {}
        self.shard, self.progress, self.report, self.done = shard, progress, IndexReport(), 0

    def is_mine(self, path: str) -> bool:
        """Return True if a file belongs to the part of the collection being indexed."""
        return shard_of(path, self.shard[1]) == self.shard[0]

    def look_around(self) -> dict[str, str]:
        """List the files; return unreadable ones of all parts, with the reason."""
        videos = self.gallery.videos
        listed = find_videos(videos)
        if not listed.videos:
            raise ValueError(f'no videos in {videos} (nothing was changed); '
                             f'{describe_left_out(listed.left_out) or "the folder is empty"}')
        unreadable = listed.unreadable()
        self.report.left_out = {why: paths for why, paths in listed.left_out.items()
                                if unreadable.keys().isdisjoint(paths)}
        self.found = {path: _state_of(self._full(path)) for path in listed.videos if self.is_mine(path)}
        return unreadable

    def process(self) -> None:
        """Index the files in ``found``."""
        self.before = self.catalogue.files()
        batch = []  # (file, frames [F, 3, H, W], number of real frames)
        with ThreadPoolExecutor(self.num_workers) as pool:
            try:
                for (file, clips), loaded in look_ahead(pool, self._load, self._parts(pool), 2 * self.num_workers):
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
                    while len(batch) >= self.batch_size:
                        self._keep(batch[:self.batch_size])
                        batch = batch[self.batch_size:]
                if batch:
                    self._keep(batch)
            finally:
                pool.shutdown(cancel_futures=True)

    def remove_others(self, unreadable: Iterable[str]) -> None:
        """Remove missing files, but keep those at or below paths that can't be read now, as they may still exist."""
        hidden = set(unreadable)
        gone = [path for path in self.before if path not in self.found and hidden.isdisjoint(_with_parents(path))]
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
                self._tell(path)
            else:
                todo.append(path)
        for path, (state, identity, may_be_there) in look_ahead(pool, self._look, todo, 4 * self.num_workers):
            known = self.before.get(path)
            if state.error == CHANGED:
                self._leave(path)
            elif state.error and may_be_there and known is not None and known.error is None:
                self.report.failed.append((path, state.error))  # keep what is known of it
                self._tell(path)
            elif state.error:
                self._fail(_File(path, state), state.error)
            elif known is not None and known.hash == state.hash and known.error is None:
                with self.catalogue.transaction():
                    self.catalogue.touch_file(path, state)
                self.report.unchanged += 1
                self._tell(path)
            elif (same := self.catalogue.clips_of_content(state.hash)) is not None:
                self._put([_File(path, state, identity, *same)])
            else:
                yield _File(path, state, identity)

    def _parts(self, pool: ThreadPoolExecutor) -> Iterator[tuple[_File, list]]:
        """Yield files with some of their clips."""
        for file, duration in look_ahead(pool, self._measure, self._new_files(pool), 2 * self.num_workers):
            if isinstance(duration, str):
                self._fail(file, duration)
                continue
            try:
                file.clips = self._windows(file.path, duration)
            except ValueError as e:
                self._fail(file, str(e))
                continue
            file.whole = file.clips == [(0., float(duration))]
            for first in range(0, len(file.clips), self.batch_size):
                yield file, file.clips[first:first + self.batch_size]

    # -- in threads ---------------------------------------------------------------------------------------------------
    def _windows(self, path: str, duration: float) -> list[tuple[float, float]]:
        settings = self.gallery.settings
        return cut_windows(duration, settings.get('window'), settings.get('stride'), self.max_windows)

    def _full(self, path: str) -> str:
        return os.path.join(self.gallery.videos, path)

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
        files, frames, real = zip(*batch)
        vectors = self.encode(torch.stack(frames), list(real))
        check_vectors(vectors[:, :self.gallery.settings['dim']], self.gallery.settings['dim'])
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
                    why = f'{len(file.unread)} of {len(file.clips)} windows can\'t be read: {why}'
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
            if known is None or known.error is not None:
                self.report.added += 1
            else:
                self.report.changed += 1
            self._tell(file.path)

    def _leave(self, path: str) -> None:
        """Leave a file for the next run; what is known of it is kept."""
        self.report.failed.append((path, CHANGED))
        self._tell(path)

    def _fail(self, file: _File, reason: str) -> None:
        reason = reason.encode('utf-8', 'backslashreplace').decode()  # for names that are not UTF-8
        file.state = file.state._replace(error=reason)
        if reason == CHANGED:
            self._leave(file.path)
            return
        with self.catalogue.transaction():
            self.catalogue.put_file(file.path, file.state)
        self.report.failed.append((file.path, reason))
        self._tell(file.path)

    def _tell(self, path: str) -> None:
        self.done += 1
        self.progress(self.done, len(self.found), path)
