"""Index videos that are not in a local folder."""
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress

from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.remote import FileStat
from vop_mm.datasets.video_files import is_video_name
from vop_mm.datasets.video_source import ChangedVideoError, VideoSource
from vop_mm.utils.paths import path_below

from .catalogue import FileState
from .indexing import CHANGED, Run, _File, hash_file

_UNKNOWN = 0  # replaces an unknown modification time; no file in a catalog has this value


def list_videos(source: VideoSource) -> tuple[dict[str, FileStat], dict[str, str]]:
    """List the videos of a source other than a web server, which can't be listed.

    Returns:
        tuple[dict[str, FileStat], dict[str, str]]: Size and tag of each video, and the reasons why others were refused.

    Raises:
        ValueError: There are no videos, or they can't be listed.
        VideoDecodeError: Listing failed.
    """
    found, refused = {}, {}
    for name, stat in source.list().items():
        if not source.names_videos and not is_video_name(name):
            continue
        try:
            path_below('', name)
        except ValueError:
            refused[name] = 'the name leads out of the folder'
        else:
            found[name] = stat
    if not found:
        raise ValueError(f'no videos in {source}')
    return dict(sorted(found.items())), refused


class RemoteRun(Run):
    """Update of an index with a remote source. A file's identity is its ``FileStat``."""

    def __init__(self, source: VideoSource, *args) -> None:
        super().__init__(*args)
        self.source, self.stats = source, {}
        self._loaded: dict[str, list] = {}  # clips of files that need not be fetched a second time

    def list_files(self) -> dict[str, str]:
        """List the files of the source; see :func:`list_videos`."""
        self.stats, refused = list_videos(self.source)
        self.found = {name: FileState(stat.size, stat.number or _UNKNOWN, None, None)
                      for name, stat in self.stats.items() if self.is_mine(name)}
        return refused

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
        content = json.dumps([path, stat.size, tag]).encode()  # each server has its own tags, and windows differ
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return FileState(stat.size, stat.number, digest, None), stat, True

    def _measure(self, file: _File) -> float | str:
        return self._ask(file, self._measure_and_load, file)

    def _measure_and_load(self, local: str, file: _File) -> float:
        """Return the duration of a video; also load its clips, unless there are many."""
        duration = self.loader.duration(local)
        with suppress(ValueError):  # reported when windows are cut
            clips = self._windows(file.path, duration)
            if len(clips) <= self.options.batch_size:
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
