"""Read and check annotation files."""
import math
import os.path as osp
from pathlib import Path

from vop_mm.utils.json_text import decode_text, parse_json
from vop_mm.utils.paths import path_below

from .errors import AnnotationError

# keys that the dataset or its transforms set; an annotation must not contain them
_MAX_SHOWN = 80  # longest quotation in an error message, in characters
_RESERVED = ('filename', 'source', 'video_index', 'sample_idx', 'unreadable', 'imgs', 'tokens', 'num_frames')


def read_annotation(path: str) -> tuple[dict, list[dict]]:
    """Read and validate an annotation file, in this project's format or in mmaction2's.

    Args:
        path (str): JSON file. Either ``{"metainfo": {...}, "data_list": [{"video_id", "video", "captions": [...],
            "start"?, "end"?, ...}]}`` with times in seconds, or ``{"file.mp4": ["caption", ...]}``, where the file name
            without its extension becomes the id.

    Returns:
        tuple[dict, list[dict]]: The metainfo (empty in mmaction2's format), and one dict per video, in file order,
        with at least ``video_id``, ``video`` and ``captions`` (non-empty list of str).

    Raises:
        AnnotationError: The file is missing, not JSON, or in another format; an entry is ill-formed (the message names
            it); a video id is duplicated; or there are no entries.
    """
    content = _load_json(path)
    if not isinstance(content, dict):
        raise AnnotationError(path, f'expected a JSON object at the top, found a {_kind(content)}')
    if 'data_list' in content:
        metainfo, entries = content.get('metainfo', {}), content['data_list']
        if not isinstance(metainfo, dict):
            raise AnnotationError(path, f'metainfo must be an object, found a {_kind(metainfo)}')
        if not isinstance(entries, list):
            raise AnnotationError(path, f'data_list must be a list, found a {_kind(entries)}')
    elif all(isinstance(captions, list) for captions in content.values()):
        metainfo = {}
        entries = [dict(video_id=osp.splitext(video)[0], video=video, captions=captions)
                   for video, captions in content.items()]
    else:
        raise AnnotationError(path, 'neither {"metainfo", "data_list"} nor {"file.mp4": ["caption", ...]}')
    if not entries:
        raise AnnotationError(path, 'the dataset is empty')
    check_entries(path, entries)
    return metainfo, entries


def locate_video(path: str, position: int, entry: dict, folder: str) -> str:
    """Return the path of an entry's video, which must lie in the video folder.

    Args:
        path (str): Annotation file, for error messages.
        position (int): Position of the entry in it.
        entry (dict): Entry as returned by :func:`read_annotation`.
        folder (str): Video folder. If empty, the annotation's paths are used as they are.

    Returns:
        str: The path. The file system is not accessed; links in the folder belong to the user and are followed.

    Raises:
        AnnotationError: The entry's path is absolute or leads out of the folder.
    """
    if not folder:
        return entry['video']
    try:
        return path_below(folder, entry['video'])
    except ValueError:
        raise AnnotationError(path, f'{_where(position, entry)}: the path {_found(entry, "video")} is outside the '
                              f'video folder {folder}') from None


def _load_json(path: str):
    if not osp.isfile(path):
        raise AnnotationError(path, 'no such annotation file')
    try:
        return parse_json(decode_text(Path(path).read_bytes()))
    except ValueError as e:
        raise AnnotationError(path, f'not a JSON file ({" ".join(str(e).split())})') from None
    except OSError as e:
        raise AnnotationError(path, f"can't be read ({e.strerror})") from None


def check_entries(path: str, entries: list) -> None:
    """Check the entries of an annotation; raise AnnotationError naming the first ill-formed one."""
    seen = set()
    for position, entry in enumerate(entries):
        where = f'entry {position}'
        if not isinstance(entry, dict):
            raise AnnotationError(path, f'{where} must be an object, found a {_kind(entry)}')
        for key in ('video_id', 'video'):
            if not isinstance(entry.get(key), str) or not entry[key]:
                raise AnnotationError(path, f'{where}: {key} must be a non-empty string, '
                                      f'found {_found(entry, key)}')
        where = _where(position, entry)
        if entry['video_id'] in seen:
            raise AnnotationError(path, f'{where}: duplicate video_id')
        seen.add(entry['video_id'])
        captions = entry.get('captions')
        if not isinstance(captions, list) or not captions:
            raise AnnotationError(path, f'{where}: captions must be a non-empty list, '
                                  f'found {_found(entry, "captions")}')
        for caption in captions:
            if not isinstance(caption, str) or not caption.strip():
                raise AnnotationError(path, f'{where}: a caption must be a non-empty string, found '
                                      f'{_shown(repr(caption))}')
        _check_times(path, where, entry)
        reserved = [key for key in _RESERVED if key in entry]
        if reserved:
            raise AnnotationError(path, f'{where}: the key {reserved[0]!r} is reserved')


def _check_times(path: str, where: str, entry: dict) -> None:
    for key in ('start', 'end'):
        time = entry.get(key)
        if time is not None and not _is_time(time):
            raise AnnotationError(path, f'{where}: {key} must be a number of seconds, at least 0, '
                                  f'found {_found(entry, key)}')
    start, end = entry.get('start') or 0, entry.get('end')
    if end is not None and end <= start:
        raise AnnotationError(path, f'{where}: end ({end}) must be greater than start ({start})')


def _is_time(value) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:  # an integer too large for a float
        return False


def _where(position: int, entry: dict) -> str:
    return f'entry {position} ({printable(entry["video_id"])})'


def _found(entry: dict, key: str) -> str:
    if key not in entry:
        return 'none'
    try:
        return _shown(repr(entry[key]))
    except (ValueError, RecursionError):  # a very long number; deeply nested lists
        return f'a very long {_kind(entry[key])}'


def printable(text: str) -> str:
    """Return a text from a file for a one-line message: non-printable characters escaped, long texts cut."""
    return _shown(''.join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_MAX_SHOWN + 1]))


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '...'


def _kind(value) -> str:
    names = {dict: 'object', list: 'list', str: 'text', bool: 'true or false', type(None): 'null'}
    return names.get(type(value), 'number')
