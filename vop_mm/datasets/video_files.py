"""Find the videos of a folder; used by indexing, converters and compression alike."""
import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vop_mm.utils.cli import printable
from vop_mm.utils.stalls import call_unless_stalled

VIDEO_EXTENSIONS = frozenset(
    '.3g2 .3gp .asf .avi .divx .f4v .flv .gif .m2p .m2t .m2ts .m4v .mk3d .mkv .mov .mp4 .mpe .mpeg .mpg .mts .ogm .ogv '
    '.qt .tp .ts .vob .webm .wmv'.split())
"""Extensions of the containers in ``decoding/formats.py``; raw streams (``.m2v``, ``.h264``) have no container."""

NO_VIDEO = 'without a video extension'
SYSTEM = 'system files'
HIDDEN = 'hidden'
UNFINISHED = 'not fully downloaded'
SEEN = 'linked to a folder that was already searched'
FOLDER = 'named like a video, but a folder'
NOT_REGULAR = 'not a regular file'
DANGLING = 'linked to nothing'
UNLISTED = 'cannot be listed'

_SYSTEM_NAMES = frozenset(('.trashes', '@eadir', '#recycle', '@recycle', '$recycle.bin', 'system volume information',
                           '.spotlight-v100', '.fseventsd', 'lost+found'))
_SYSTEM_PREFIXES = '._', '.trash-'
_UNFINISHED = '.part', '.tmp', '.crdownload'
_MAX_SHOWN = 3


@dataclass
class FoundVideos:
    """The videos of a folder.

    Attributes:
        videos (list[str]): Paths relative to the folder, with ``/``, sorted.
        left_out (dict[str, list[str]]): Relative paths of other files and folders by reason, sorted. A reason is a
            constant of this module; ``UNLISTED`` is followed by the system's message.
    """
    videos: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def unreadable(self) -> dict[str, str]:
        """Return what may be or contain a video but can't be read now: path -> reason."""
        return {path: reason for reason, paths in self.left_out.items() for path in paths
                if reason in (NOT_REGULAR, DANGLING) or reason.startswith(UNLISTED)}


def describe_left_out(left_out: dict[str, list[str]]) -> str:
    """Describe what was left out of a folder, in one printable line.

    Args:
        left_out (dict[str, list[str]]): See :class:`FoundVideos`.

    Returns:
        str: Counts, and some of the names. Empty if nothing was left out.
    """
    parts = []
    for reason, paths in sorted(left_out.items()):
        if reason == NO_VIDEO:
            what = f'{len(paths)} file{"s" * (len(paths) != 1)} {NO_VIDEO}'
            counts = Counter(os.path.splitext(path)[1].lower() or 'without' for path in paths)
            names = [f'{kind} {count}' for kind, count in counts.most_common()]
        else:
            what, names = f'{len(paths)} {reason}', paths
        more = ', ...' if len(names) > _MAX_SHOWN else ''
        parts.append(f'{what} ({", ".join(map(printable, names[:_MAX_SHOWN]))}{more})')
    return f'left out: {"; ".join(parts)}' if parts else ''


def find_videos(folder: str | Path) -> FoundVideos:
    """Find the videos in a folder and all its subfolders, by their names.

    Links to files and folders are followed. Each folder is searched once, under its own name if it lies in the folder
    itself, so links that lead back end there. Whatever can't be read, or doesn't respond for a minute, is recorded and
    does not stop the search.

    Args:
        folder (str | Path): Folder to search. It may have any name.

    Returns:
        FoundVideos: The videos, and what was left out.

    Raises:
        OSError: The folder itself can't be read.
    """
    root, found, seen = os.fspath(folder), FoundVideos(), set()
    folders, links = deque(['']), deque()
    while folders or links:
        below = folders.popleft() if folders else links.popleft()  # links last: a folder's own name comes first
        path = os.path.join(root, below)
        try:
            identity, entries = call_unless_stalled(lambda alive, path=path: _list_folder(path, alive))
        except OSError as e:
            if not below:
                raise
            _leave_out(found, f'{UNLISTED}: {e.strerror}', below)
            continue
        if identity in seen:
            _leave_out(found, SEEN, below)
            continue
        seen.add(identity)
        for name, reason, is_link in entries:
            name_below = f'{below}/{name}' if below else name
            if reason == FOLDER:
                (links if is_link else folders).append(name_below)
            if reason is None:
                found.videos.append(name_below)
            elif reason != FOLDER or is_video_name(name):
                _leave_out(found, reason, name_below)
    found.videos.sort()
    for paths in found.left_out.values():
        paths.sort()
    return found


def is_video_name(name: str) -> bool:
    """Return True if a name has a video extension."""
    return os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def _leave_out(found: FoundVideos, reason: str, path: str) -> None:
    found.left_out.setdefault(reason, []).append(path)


def _list_folder(path: str, alive: Callable[[], None]) -> tuple[tuple[int, int], list[tuple[str, str | None, bool]]]:
    """Return the identity of a folder, and (name, reason, is_link) of each entry, sorted.

    The reason says why the entry is not a video (None if it is one). ``alive`` is called for each entry.
    """
    entries, status = [], os.stat(path)
    with os.scandir(path) as listing:
        for entry in listing:
            alive()
            entries.append((entry.name, _reason_by_name(entry.name) or _reason_by_kind(entry), entry.is_symlink()))
    return (status.st_dev, status.st_ino), sorted(entries, key=lambda entry: entry[0])


def _reason_by_name(name: str) -> str | None:
    folded = name.lower()
    if folded in _SYSTEM_NAMES or folded.startswith(_SYSTEM_PREFIXES):
        return SYSTEM
    return HIDDEN if name.startswith('.') else None


def _reason_by_kind(entry: os.DirEntry) -> str | None:
    """Return why an entry is not a video (None if it is one); ``FOLDER`` includes folders to be searched."""
    try:
        if entry.is_dir():
            return FOLDER
        if entry.is_file():
            if entry.name.lower().endswith(_UNFINISHED):
                return UNFINISHED
            return None if is_video_name(entry.name) else NO_VIDEO
        if entry.is_symlink() and not os.path.exists(entry.path):
            return DANGLING
    except OSError as e:  # a link into a folder without permission, or to itself
        return f'{UNLISTED}: {e.strerror}'
    return NOT_REGULAR if is_video_name(entry.name) else NO_VIDEO
