"""Matching of files on disk to the videos of an annotation."""
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from .source import ConversionError


def without_extension(name: str) -> str:
    """Remove a video extension from a name; ``'0001_A_00.00.51.926-00.00.54.129'`` has none."""
    from vop_mm.datasets.video_files import is_video_name  # it imports torch, which --help doesn't need
    return os.path.splitext(name)[0] if is_video_name(name) else name


class VideoFiles:
    """Videos in a folder and its subfolders, with any video extension.

    Args:
        folder (str | Path): Folder to search with :func:`~vop_mm.datasets.video_files.find_videos`.
        prefix (str): Prefix of ids that file names may lack (ActivityNet's ``'v_'``). Defaults to none.

    Attributes:
        paths (list[str]): Paths of all videos relative to ``folder``, sorted.
        left_out (dict[str, list[str]]): Other files, by the reason why they are not videos.

    Raises:
        FileNotFoundError: The folder does not exist.
    """

    def __init__(self, folder: str | Path, prefix: str = '') -> None:
        self.folder, self.prefix = Path(folder), prefix
        if not self.folder.is_dir():
            raise FileNotFoundError(f'no such folder: {folder}')
        from vop_mm.datasets.video_files import find_videos
        found = find_videos(folder)
        self.paths, self.left_out = found.videos, found.left_out
        self._by_name: dict[str, list[str]] = {}
        for path in self.paths:
            name = os.path.basename(path)
            for key in {name, without_extension(name)}:
                self._by_name.setdefault(key, []).append(path)
        self._by_form: dict[str, list[str]] = {}
        for key, paths in self._by_name.items():
            self._by_form.setdefault(_one_form(key), []).extend(paths)

    def match(self, video_ids: Iterable[str]) -> dict[str, str]:
        """Find the files of videos.

        A file belongs to an id if the names are equal. If there is no such file, names are compared without extensions,
        without the prefix, and with normalized accents (a Mac stores ``é`` as ``e`` plus an accent). A GIF, which may
        be a preview, is used only if no other file matches.

        Args:
            video_ids (Iterable[str]): Ids or file names, as in the annotation.

        Returns:
            dict[str, str]: Id -> path relative to the folder. Videos without a file are left out.

        Raises:
            ConversionError: Several files match one id, or several ids match one file.
        """
        found: dict[str, str] = {}
        owners: dict[str, str] = {}
        for video_id in video_ids:
            paths = self._fitting(video_id)
            if len(paths) > 1:
                raise ConversionError(f'{self.folder}: several files could be {video_id}: {", ".join(paths[:3])}; '
                                      'name the folder that holds each video once')
            for path in paths:
                if owners.setdefault(path, video_id) != video_id:
                    raise ConversionError(f'{self.folder}: {path} could be {owners[path]} or {video_id}')
                found[video_id] = path
        return found

    def _fitting(self, video_id: str) -> list[str]:
        names = self._names(video_id)
        paths = next((self._by_name[name] for name in names if name in self._by_name), None)
        if paths is None:
            forms = map(_one_form, names)
            paths = next((self._by_form[form] for form in forms if form in self._by_form), [])
        return [path for path in paths if not path.lower().endswith('.gif')] or paths

    def _names(self, video_id: str) -> list[str]:
        names = list(dict.fromkeys([video_id, without_extension(video_id)]))
        if self.prefix:
            names += [name.removeprefix(self.prefix) if name.startswith(self.prefix) else self.prefix + name
                      for name in names]
        return names


def _one_form(name: str) -> str:
    return unicodedata.normalize('NFC', name)
