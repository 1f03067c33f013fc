"""WebDataset tar shards: list the samples in them and read the bytes of a member."""
import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from vop_mm.utils.cli import printable
from vop_mm.utils.paths import open_regular, path_below

from .annotation import printable as shortened
from .errors import AnnotationError, VideoDecodeError
from .remote import FileStat
from .video_files import is_video_name
from .video_manifest import unique_keys
from .video_source import VideoSource

_RANGE = re.compile(r'\{(\d+)\.\.(\d+)\}')
_MAX_SHARDS = 1_000_000
_MAX_MEMBERS = 5_000_000  # per shard
_MAX_NAME = 1024  # characters
_MAX_HEADER = 1 << 16  # maximum bytes per read between members
_MAX_TEXT = 1 << 20  # maximum bytes of a caption file
_BLOCK = 1 << 20


class Member(NamedTuple):
    """Position of a file in a shard: shard number, offset and size in bytes."""
    shard: int
    offset: int
    size: int


class TarSource(VideoSource):
    """Videos in tar shards, named ``shard.tar/member``. A member is copied to a temporary file while it is used.

    Args:
        shards (Sequence[str]): Paths of the shards.
        members (dict[str, Member]): Positions of the videos, by name.
    """

    def __init__(self, shards: Sequence[str], members: dict[str, Member]) -> None:
        super().__init__()
        self.is_local = False
        self._members = members
        self._shards = [(path, os.stat(path)) for path in shards]

    def stat(self, name: str) -> FileStat:
        """Return the size of a video and the modification time of its shard."""
        member = self._members[self._find(name)[1]]
        return FileStat(member.size, str(self._shards[member.shard][1].st_mtime_ns))

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[FileStat, Iterator[bytes]]]:
        """Open a member; see :meth:`HttpFiles.open`."""
        member = self._members[name]
        path, before = self._shards[member.shard]
        try:
            file = open_regular(path)
        except OSError as e:
            raise VideoDecodeError(name, f'{path}: {e.strerror or e}') from None
        with file:
            now = os.fstat(file.fileno())
            if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise VideoDecodeError(name, f'{path} has changed since its members were listed')
            yield self.stat(name), _read(file, member)

    def _find(self, name: str) -> tuple['TarSource', str]:
        if name not in self._members:
            raise ValueError(f'{shortened(name)} is not in the shards')
        return self, name


def _read(file: BinaryIO, member: Member) -> Iterator[bytes]:
    file.seek(member.offset)
    left = member.size
    while left and (chunk := file.read(min(left, _BLOCK))):
        left -= len(chunk)
        yield chunk


def expand_shards(patterns: str | Sequence[str], folder: str = '') -> list[str]:
    """Expand shard patterns to paths.

    Args:
        patterns (str | Sequence[str]): ``'shard-{0000..0099}.tar'``, ``'shard-*.tar'`` or a name, one or several.
        folder (str): Folder that the patterns are relative to.

    Returns:
        list[str]: Paths, in the order of the patterns, numbers and names.

    Raises:
        AnnotationError: A pattern matches no file, or two files have the same name.
    """
    paths = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = ['']
        for text, first, last in _parts(os.path.join(folder, pattern)):
            count = 1 if first is None else int(last) - int(first) + 1
            if not 0 < len(names) * count <= _MAX_SHARDS:
                raise AnnotationError(pattern, f'no shards, or more than {_MAX_SHARDS:,}')
            numbers = [''] if first is None else [f'{int(first) + i:0{len(first)}}' for i in range(count)]
            names = [name + text + number for name in names for number in numbers]
        for name in names:
            found = sorted(glob.glob(name)) if glob.has_magic(name) and not os.path.exists(name) else [name]
            if not found:
                raise AnnotationError(pattern, 'no such shards')
            paths += found
    if not paths:
        raise AnnotationError(folder, 'no shards were named')
    names = [os.path.basename(path) for path in paths]
    if len(set(names)) < len(names):
        raise AnnotationError(max(names, key=names.count), 'two shards have this name')
    return paths


def _parts(pattern: str) -> Iterator[tuple[str, str | None, str | None]]:
    at = 0
    for found in _RANGE.finditer(pattern):
        yield pattern[at:found.start()], found[1], found[2]
        at = found.end()
    yield pattern[at:], None, None


def read_shard(path: str, number: int) -> tuple[list[dict], dict[str, Member]]:
    """List the samples of a shard: members with the same name up to the first dot.

    Args:
        path (str): Uncompressed tar archive.
        number (int): Number of the shard.

    Returns:
        tuple[list[dict], dict[str, Member]]: Entries as in an annotation, and the position of each ``video``.

    Raises:
        AnnotationError: The file is not a plain tar archive, is cut off, or contains what it must not: links, devices,
            paths that lead out, a video without captions. The message names the member.
    """
    shard, samples = os.path.basename(path), {}
    try:
        with open_regular(path) as file:
            for name, member in _members(path, file, number):
                folder, _, base = name.rpartition('/')
                key, _, extension = base.partition('.')
                if base.startswith('__') or not key:
                    continue
                sample = samples.setdefault(f'{folder}/{key}' if folder else key, {})
                extension = extension.lower()
                is_video = is_video_name(f'x.{extension}')
                if not is_video and extension not in ('txt', 'json'):
                    continue
                kind = 'video' if is_video else extension
                if kind in sample:
                    raise AnnotationError(path, f'{shortened(name)}: another {kind} of the same sample')
                sample[kind] = (name, member) if is_video else _text(path, name, file, member)
    except OSError as e:
        raise AnnotationError(path, f"can't be read ({e.strerror or e})") from None
    entries, members = [], {}
    for key, sample in samples.items():
        if 'video' not in sample:
            continue
        name, member = sample['video']
        members[f'{shard}/{name}'] = member
        entries.append(dict(video_id=f'{os.path.splitext(shard)[0]}/{key}', video=f'{shard}/{name}',
                            **_captions(path, key, sample)))
    if not entries:
        raise AnnotationError(path, 'no videos in the shard')
    return entries, members


def _members(path: str, file: BinaryIO, number: int) -> Iterator[tuple[str, Member]]:
    """Yield the regular files of an archive in order."""
    size, end, seen = os.fstat(file.fileno()).st_size, 0, set()
    try:
        with tarfile.open(fileobj=_Headers(file), mode='r:') as archive:
            for info in archive:
                name = info.name.removeprefix('./')
                shown = shortened(info.name)
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise AnnotationError(path, f'{shown}: only regular files may be in a shard, no links or devices')
                if info.size < 0 or info.offset_data < end or info.offset_data + info.size > size:
                    raise AnnotationError(path, f'{shown}: the archive is truncated or damaged')
                end = info.offset_data + info.size
                try:
                    path_below('', name)
                except ValueError:
                    raise AnnotationError(path, f'{shown}: the name points outside the shard') from None
                if name in seen or len(name) > _MAX_NAME or len(seen) == _MAX_MEMBERS:
                    raise AnnotationError(path, f'{shown}: a name of more than {_MAX_NAME} characters, a second file '
                                          f'of this name, or more than {_MAX_MEMBERS:,} files')
                seen.add(name)
                yield name, Member(number, info.offset_data, info.size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as e:
        if isinstance(e, AnnotationError):
            raise
        raise AnnotationError(path, 'not an uncompressed tar archive: compressed, truncated or damaged '
                              f'({printable(shortened(str(e)))})') from None


class _Headers:
    """File object that limits the size of a read: tarfile reads headers of whatever size they claim."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.at = file, 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise ValueError(f'a header of {size} bytes')
        self.file.seek(self.at)  # other code reads from the file between members
        data = self.file.read(size)
        self.at += len(data)
        return data

    def seek(self, offset: int) -> None:
        if offset < 0:
            raise ValueError('a negative offset')
        self.at = offset

    def tell(self) -> int:
        return self.at


def _text(path: str, name: str, file: BinaryIO, member: Member) -> str:
    if member.size > _MAX_TEXT:
        raise AnnotationError(path, f'{shortened(name)}: captions of {member.size:,} bytes are too long')
    try:
        return b''.join(_read(file, member)).decode('utf-8-sig')
    except UnicodeDecodeError:
        raise AnnotationError(path, f'{shortened(name)}: captions must be UTF-8') from None


def _captions(path: str, key: str, sample: dict) -> dict:
    """Return the captions of a sample, and start and end if its JSON has them."""
    content = {}
    if 'json' in sample:
        try:
            content = json.loads(sample['json'], object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as e:
            raise AnnotationError(path, f'{shortened(key)}.json: not JSON ({shortened(printable(str(e)))})') from None
        if not isinstance(content, dict):
            content = dict(captions=content)
    captions = content.get('captions', content.get('caption'))
    if 'txt' in sample:
        captions = ' '.join(sample['txt'].split())
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not captions or not all(isinstance(c, str) and c.strip() for c in captions):
        raise AnnotationError(path, f'{shortened(key)}: a video needs a .txt with a caption beside it, or a .json with '
                              'a text "caption" or a list of texts "captions"')
    return dict(captions=captions, **{time: content[time] for time in ('start', 'end') if time in content})
