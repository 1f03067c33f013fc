"""Which file on disk belongs to which video of an annotation."""
import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from .source import ConversionError

EXTENSIONS = frozenset('.3gp .asf .avi .f4v .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv'.split())


def without_extension(name: str) -> str:
    """A name without the extension of a video; ``'0001_A_00.00.51.926-00.00.54.129'`` has none."""
    path = PurePath(name)
    return name[:-len(path.suffix)] if path.suffix.lower() in EXTENSIONS else name


class VideoFiles:
    """The videos below a folder, in whatever sub-folders, with whatever extension.

    Args:
        folder (str | Path): Where the videos are. Links to folders are followed, hidden files left out.
        prefix (str): What ids begin with and names of files may or may not (ActivityNet's ``'v_'``). Defaults to none.

    Attributes:
        paths (list[str]): Of all videos, relative to ``folder``, sorted.

    Raises:
        FileNotFoundError: There is no such folder.
    """

    def __init__(self, folder: str | Path, prefix: str = '') -> None:
        self.folder, self.prefix = Path(folder), prefix
        if not self.folder.is_dir():
            raise FileNotFoundError(f'no such folder: {folder}')
        self.paths = sorted(self._walk())
        self._by_name: dict[str, list[str]] = {}
        for path in self.paths:
            name = os.path.basename(path)
            for key in {name, without_extension(name)}:
                self._by_name.setdefault(key, []).append(path)

    def _walk(self) -> Iterable[str]:
        seen = set()
        for folder, folders, files in os.walk(self.folder, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link that leads back
                folders.clear()
                continue
            seen.add(real)
            for name in files:
                if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith('.'):
                    yield os.path.relpath(os.path.join(folder, name), self.folder)

    def match(self, video_ids: Iterable[str]) -> dict[str, str]:
        """Find the files of videos.

        A file belongs to an id if it has its name; where there is none, if the two are equal without extensions, or but
        for the prefix.

        Args:
            video_ids (Iterable[str]): Ids or file names, as the annotation has them.

        Returns:
            dict[str, str]: Id -> path relative to the folder. Those without a file are left out.

        Raises:
            ConversionError: Several files for one id, or several ids for one file.
        """
        found: dict[str, str] = {}
        owners: dict[str, str] = {}
        for video_id in video_ids:
            paths = next((self._by_name[name] for name in self._names(video_id) if name in self._by_name), [])
            if len(paths) > 1:
                raise ConversionError(f'{self.folder}: several files could be {video_id}: {", ".join(paths[:3])}; '
                                      'name the folder that holds each video once')
            for path in paths:
                if owners.setdefault(path, video_id) != video_id:
                    raise ConversionError(f'{self.folder}: {path} could be {owners[path]} or {video_id}')
                found[video_id] = path
        return found

    def _names(self, video_id: str) -> list[str]:
        names = list(dict.fromkeys([video_id, without_extension(video_id)]))
        if self.prefix:
            names += [name.removeprefix(self.prefix) if name.startswith(self.prefix) else self.prefix + name
                      for name in names]
        return names
