"""Manifests: lists of videos by address, as JSON lines."""
import json
import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from vop_mm.utils.cli import printable
from vop_mm.utils.paths import open_regular, path_below

from .annotation import printable as shortened
from .errors import AnnotationError
from .remote import FileStat, is_address, public_address
from .remote.addresses import scheme_of

SCHEMES = ('s3', 'gs', 'http', 'https')
_KEYS = ('url', 'start', 'end', 'size', 'etag')
_MAX_LINE = 1 << 16
_MAX_ENTRIES = 10_000_000


@dataclass(frozen=True)
class ManifestEntry:
    """A line of a manifest.

    Attributes:
        url (str): Location of the video: an address, or a path below the manifest's folder.
        start (float, optional): Start of the clip in seconds.
        end (float, optional): End of the clip in seconds.
        size (int, optional): File size in bytes.
        etag (str, optional): The server's content tag.
    """
    url: str
    start: float | None = None
    end: float | None = None
    size: int | None = None
    etag: str | None = None

    @property
    def name(self) -> str:
        """Name of the clip for display and storage: without passwords, and with the time after ``#t=``."""
        times = '' if (self.start, self.end) == (None, None) else f'#t={_seconds(self.start)},{_seconds(self.end)}'
        return public_address(self.url) + times.rstrip(',')

    @property
    def stat(self) -> FileStat:
        """Size and tag of the file according to the manifest."""
        return FileStat(self.size, self.etag)


def is_manifest(path: str | os.PathLike) -> bool:
    """Return True if a path has the extension of a manifest, ``.jsonl``."""
    return not is_address(str(path)) and str(path).lower().endswith('.jsonl')


def read_manifest(path: str | os.PathLike) -> list[ManifestEntry]:
    """Read and validate a manifest.

    Args:
        path (str | os.PathLike): JSON lines: ``{"url": "s3://bucket/a.mp4", "start"?, "end"?, "size"?, "etag"?}``,
            times in seconds. A url has one of the schemes s3, gs, http and https, or is a path relative to the
            manifest's folder, or ``file:`` with a path below it. Empty lines are skipped.

    Returns:
        list[ManifestEntry]: Entries in file order; files in the manifest's folder have relative paths.

    Raises:
        AnnotationError: The file is missing or empty, a line is ill-formed (it is named), or a clip is duplicated.
    """
    path = os.fspath(path)
    entries, lines = [], {}
    try:
        with open_regular(path) as file:
            number = 0
            while line := file.readline(_MAX_LINE + 1):
                number += 1
                if len(line) > _MAX_LINE or number > _MAX_ENTRIES:
                    raise AnnotationError(path, f'line {number}: more than {_MAX_LINE} bytes in a line, or more than '
                                          f'{_MAX_ENTRIES:,} lines')
                if line.strip():
                    entry = _entry(path, number, line)
                    entries.append(entry)
                    if lines.setdefault(entry.name, number) != number:
                        raise AnnotationError(path, f'line {number}: the same clip as in line {lines[entry.name]}')
    except OSError as e:
        raise AnnotationError(path, f"can't be read ({e.strerror})") from None
    if not entries:
        raise AnnotationError(path, 'the manifest is empty')
    return entries


def _entry(path: str, number: int, line: bytes) -> ManifestEntry:
    def error(what: str) -> AnnotationError:
        return AnnotationError(path, f'line {number}: {what}')

    try:
        content = json.loads(line.decode('utf-8-sig' if number == 1 else 'utf-8'), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as e:
        raise error(f'not JSON ({shortened(" ".join(str(e).split()))})') from None
    if not isinstance(content, dict):
        raise error('not an object')
    if unknown := content.keys() - set(_KEYS):
        raise error(f'unknown key {shortened(repr(min(unknown)))}: there are {", ".join(_KEYS)}')
    content = {key: value for key, value in content.items() if value is not None}
    for key, kinds, what in (('url', str, 'a text'), ('etag', str, 'a text'), ('size', int, 'bytes, a whole number'),
                             ('start', (int, float), 'seconds'), ('end', (int, float), 'seconds')):
        value = content.get(key)
        if value is None and key != 'url':
            continue
        sound = isinstance(value, kinds) and not isinstance(value, bool)
        if not sound or (not value if isinstance(value, str) else not 0 <= value < 2**53):  # also refuses NaN
            raise error(f'{key} must be {what}, found {shortened(repr(value))}')
    if content.get('end') is not None and content['end'] <= content.get('start', 0):
        raise error(f'end ({content["end"]}) must be greater than start ({content.get("start", 0)})')
    try:
        content['url'] = _place(path, content['url'])
    except ValueError as e:
        raise error(printable(str(e))) from None
    return ManifestEntry(**content)


def unique_keys(pairs: list[tuple]) -> dict:
    """Build a dict from JSON's ``object_pairs_hook``; raise ValueError for a duplicate key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError('duplicate key')
    return content


def _place(manifest: str, url: str) -> str:
    """Return the location of a video: an address, or a path below the manifest's folder."""
    shown = shortened(public_address(url))
    if url.lower().startswith('file:'):
        parts = urlsplit(url)
        if parts.netloc not in ('', 'localhost'):
            raise ValueError(f'{shown} is a file on another machine')
        folder = os.path.dirname(os.path.abspath(manifest))
        name = os.path.relpath(unquote(parts.path), folder)
        if '..' in parts.path.split('/') or name.split('/')[0] == '..':
            raise ValueError(f'{shown} is outside the folder of the manifest')
        return name
    if not is_address(url):
        if re.match(r'[A-Za-z][A-Za-z0-9+.-]+:', url) or '::' in url:
            raise ValueError(f'{shown} is neither an address nor a path')
        try:
            path_below('', url)
        except ValueError:
            raise ValueError(f'{shown} is outside the folder of the manifest') from None
        return url
    try:
        scheme = scheme_of(url)
    except ValueError:
        scheme = None
    if scheme not in SCHEMES:
        raise ValueError(f'{shown} is no address of the schemes {", ".join(SCHEMES)}')
    return url


def _seconds(time: float | None) -> str:
    return '' if time is None else f'{time:.10g}'
