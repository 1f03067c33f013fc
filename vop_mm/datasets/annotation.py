"""Reading and checking annotation files."""
import json
import math
import os.path as osp
from collections.abc import Iterable

from .errors import AnnotationError

# set by the data set, or used between transforms; an annotation can't bring its own
_RESERVED = ('filename', 'video_index', 'sample_idx', 'unreadable', 'imgs', 'tokens', 'num_frames')


def read_annotation(path: str) -> tuple[dict, list[dict]]:
    """Read an annotation file, in this project's form or in mmaction2's, and check all of it.

    Args:
        path (str): JSON. Either ``{"metainfo": {...}, "data_list": [{"video_id", "video", "captions": [...],
            "start"?, "end"?, ...}]}``, times in seconds, or ``{"file.mp4": ["caption", ...]}``, where the file's name
            without its extension becomes the id.

    Returns:
        tuple[dict, list[dict]]: The metainfo (empty in mmaction2's form), and one dict per video, in the file's order,
        with at least ``video_id``, ``video`` and ``captions`` (a list of str, not empty).

    Raises:
        AnnotationError: No such file, not JSON, another form, an entry that is ill-formed (named), a video id twice,
            or no entries at all.
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
        raise AnnotationError(path, 'the data set is empty')
    _check_entries(path, entries)
    return metainfo, entries


def _load_json(path: str):
    if not osp.isfile(path):
        raise AnnotationError(path, 'no such annotation file')
    try:
        with open(path, encoding='utf-8-sig') as file:  # files from Windows may begin with a byte order mark
            return json.load(file, object_pairs_hook=lambda pairs: _unique_keys(path, pairs))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise AnnotationError(path, f'not a JSON file ({" ".join(str(e).split())})') from None
    except OSError as e:
        raise AnnotationError(path, f"can't be read ({e.strerror})") from None


def _unique_keys(path: str, pairs: Iterable[tuple]) -> dict:
    # json keeps the last of several equal keys, and captions would vanish without a word
    result = {}
    for key, value in pairs:
        if key in result:
            raise AnnotationError(path, f'the key {key!r} stands there twice')
        result[key] = value
    return result


def _check_entries(path: str, entries: list) -> None:
    seen = set()
    for position, entry in enumerate(entries):
        where = f'entry {position}'
        if not isinstance(entry, dict):
            raise AnnotationError(path, f'{where} must be an object, found a {_kind(entry)}')
        for key in ('video_id', 'video'):
            if not isinstance(entry.get(key), str) or not entry[key]:
                raise AnnotationError(path, f'{where}: {key} must be a text that is not empty, '
                                      f'found {_shown(entry, key)}')
        where += f' ({entry["video_id"]})'
        if entry['video_id'] in seen:
            raise AnnotationError(path, f'{where}: this video_id stands there twice')
        seen.add(entry['video_id'])
        captions = entry.get('captions')
        if not isinstance(captions, list) or not captions:
            raise AnnotationError(path, f'{where}: captions must be a list that is not empty, '
                                  f'found {_shown(entry, "captions")}')
        for caption in captions:
            if not isinstance(caption, str) or not caption.strip():
                raise AnnotationError(path, f'{where}: a caption must be a text that is not empty, found {caption!r}')
        _check_times(path, where, entry)
        reserved = [key for key in _RESERVED if key in entry]
        if reserved:
            raise AnnotationError(path, f'{where}: the key {reserved[0]!r} is used by the data set itself')


def _check_times(path: str, where: str, entry: dict) -> None:
    for key in ('start', 'end'):
        time = entry.get(key)
        number = isinstance(time, (int, float)) and not isinstance(time, bool)
        if time is not None and (not number or not math.isfinite(time) or time < 0):
            raise AnnotationError(path, f'{where}: {key} must be seconds, 0 or more, found {time!r}')
    start, end = entry.get('start') or 0, entry.get('end')
    if end is not None and end <= start:
        raise AnnotationError(path, f'{where}: end ({end}) must lie behind start ({start})')


def _shown(entry: dict, key: str) -> str:
    return repr(entry[key])[:80] if key in entry else 'none'


def _kind(value) -> str:
    names = {dict: 'object', list: 'list', str: 'text', bool: 'true or false', type(None): 'null'}
    return names.get(type(value), 'number')
