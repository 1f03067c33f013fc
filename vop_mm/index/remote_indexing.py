"""Videos that are not in a local folder into an index."""
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from torch import Tensor

from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.remote import FileStat
from vop_mm.datasets.video_files import is_video_name
from vop_mm.datasets.video_source import ChangedVideoError, VideoSource
from vop_mm.utils.paths import path_below

from .catalogue import FileState
from .gallery import Gallery
from .indexing import CHANGED, ClipLoader, IndexReport, _File, _Run, hash_file, shard_of
from .windows import MAX_WINDOWS

_ASK = 0  # in place of the time of a file that nothing is known of: no file in a catalogue has it


def index_source(gallery: Gallery,
                 source: VideoSource,
                 loader: ClipLoader,
                 encode: Callable[[Tensor, list[int]], np.ndarray],
                 batch_size: int = 32,
                 num_workers: int = 2,
                 progress: Callable[[int, int, str], None] = lambda done, total, what: None,
                 shard: tuple[int, int] = (0, 1),
                 max_windows: int = MAX_WINDOWS) -> IndexReport:
    """Bring an index up to date with videos elsewhere; see :func:`~vop_mm.index.index_folder`.

    Files are compared by size and mark (ETag, else the time of the last change), and fetched where these are new. A
    file that has no mark is fetched each time, and compared by its content.

    Args:
        source (VideoSource): Where the videos are. That of the index is not asked for: its addresses may be anybody's.
        gallery, loader, encode, batch_size, num_workers, progress, shard, max_windows: As of ``index_folder``.

    Returns:
        IndexReport: What was done.

    Raises:
        ValueError: No videos there; the index stays as it is. Or embeddings that are not finite.
        VideoDecodeError: The files can't be listed.
        BlockingIOError: Another process is at it.
    """
    with gallery.locked():
        stats, refused = list_videos(source)
        stats = {name: stat for name, stat in stats.items() if shard_of(name, shard[1]) == shard[0]}
        gallery.repair()
        gallery.finished(False)
        run = _RemoteRun(source, stats, gallery, loader, encode, batch_size, num_workers, max_windows,
                         {name: FileState(stat.size, stat.number or _ASK, None, None) for name, stat in stats.items()},
                         progress)
        run.process()
        run.remove_others(())
        progress(len(stats), len(stats), 'writing the index')
        gallery.synchronize()
        gallery.finished(True)
        run.report.clips = gallery.catalogue.num_clips()
        run.report.failed = sorted([*run.report.failed, *((name, why) for name, why in refused.items()
                                                          if shard_of(name, shard[1]) == shard[0])])
        return run.report


def list_videos(source: VideoSource) -> tuple[dict[str, FileStat], dict[str, str]]:
    """Videos of a source.

    Args:
        source (VideoSource): Not a web server, which lists nothing.

    Returns:
        tuple[dict[str, FileStat], dict[str, str]]: What is known of each, and why others are none.

    Raises:
        ValueError: There are none, or they can't be listed.
        VideoDecodeError: They can't be listed now.
    """
    found, refused = {}, {}
    for name, stat in source.list().items():
        if not source.names_videos and not is_video_name(name):
            continue
        try:
            path_below('', name)
        except ValueError:
            refused[name] = 'a name that leads out of the folder'
        else:
            found[name] = stat
    if not found:
        raise ValueError(f'no videos in {source}')
    return dict(sorted(found.items())), refused


class _RemoteRun(_Run):
    """One call of :func:`index_source`. The identity of a file is its ``FileStat``."""

    def __init__(self, source: VideoSource, stats: dict[str, FileStat], *args) -> None:
        super().__init__(*args)
        self.source, self.stats = source, stats
        self._loaded: dict[str, list] = {}  # clips of files that are not to be fetched a second time

    def _look(self, path: str) -> tuple[FileState, FileStat | None, bool]:
        stat = self.stats[path]
        try:
            if None in stat:
                stat = self.source.stat(path)
            if stat.tag is None:
                with self.source.local(path) as local, open(local, 'rb') as file:
                    tag = hash_file(file)
            else:
                tag = stat.tag
        except VideoDecodeError as e:
            return FileState(None, None, None, e.reason), None, True
        content = json.dumps([path, stat.size, tag]).encode()  # servers have marks of their own, and windows differ
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return FileState(stat.size, stat.number, digest, None), stat, True

    def _measure(self, file: _File) -> float | str:
        return self._ask(file, self._measure_and_load, file)

    def _measure_and_load(self, local: str, file: _File) -> float:
        """Duration of a video; its frames are read as well, unless they are many."""
        duration = self.loader.duration(local)
        with suppress(ValueError):  # said where windows are cut
            clips = self._windows(file.path, duration)
            if len(clips) <= self.batch_size:
                self._loaded[file.path] = self.loader.load_clips(local, clips)
        return duration

    def _load(self, part: tuple[_File, list]) -> list | str:
        loaded = self._loaded.pop(part[0].path, None)
        return super()._load(part) if loaded is None else loaded

    def _windows(self, path: str, duration: float) -> list[tuple[float, float]]:
        start, end = self.source.window(path)
        start, end = start or 0., duration if end is None else min(end, duration)
        if start >= end:
            raise ValueError(f'the clip starts at {start:g} s, the video ends at {duration:.2f} s')
        return [(start + first, start + last) for first, last in super()._windows(path, end - start)]

    def _ask(self, file: _File, call: Callable, *args):
        try:
            with self.source.local(file.path, file.identity) as local:
                return call(local, *args)
        except ChangedVideoError:
            return CHANGED
        except VideoDecodeError as e:
            return e.reason
