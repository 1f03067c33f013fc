"""Validate the settings in an index, which may come from an untrusted source."""
import json
import math
import re
from collections.abc import Callable
from typing import Any

MAX_DIM = 16384  # length of a vector
MAX_KEPT = 2**24  # number of values that a head stores per clip after its vector
_MAX_TEXT = 10_000_000  # characters of a stored config
_MAX_NAME = 4096


def read_meta(key: str, text: object) -> Any:
    """Parse and check the stored text of a value; the message of the ValueError doesn't name the file."""
    if not isinstance(text, str):
        raise ValueError(f'{key} is not text')
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError(f'{key} is not JSON') from None
    if key in _CHECKS and not _CHECKS[key](value):
        raise ValueError(f'{key} has an invalid value')
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _is_settings(value: object) -> bool:
    return (_is_plain_dict(value) and type(value.get('dim')) is int and 1 <= value['dim'] <= MAX_DIM
            and type(value.get('kept', 0)) is int and 0 <= value.get('kept', 0) <= MAX_KEPT
            and all(value.get(key) is None or _is_length(value[key]) for key in ('window', 'stride'))
            and all(isinstance(value.get(key, ''), str) for key in ('CLIP', 'prompts', 'model', 'augment')))


def _is_backend(value: object) -> bool:
    return value is None or _is_plain_dict(value) and isinstance(value.get('type'), str)


def _is_source(value: object) -> bool:
    return value is None or (isinstance(value, dict) and _is_text(value.get('config', ''), _MAX_TEXT)
                             and (value.get('checkpoint') is None or _is_text(value['checkpoint'], _MAX_NAME)))


def _is_plain_dict(value: object) -> bool:
    return isinstance(value, dict) and all(
        item is None or isinstance(item, (bool, int, float)) or _is_text(item, _MAX_NAME) for item in value.values())


def _is_length(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _is_text(value: object, max_length: int) -> bool:
    return isinstance(value, str) and len(value) <= max_length and '\0' not in value


_CHECKS: dict[str, Callable[[Any], bool]] = {
    'settings': _is_settings,
    # a path, or an address without a user; it is only displayed and compared, never accessed
    'videos': lambda value: _is_text(value, _MAX_NAME) and re.match(r'/|[a-z][a-z0-9+.-]*://[^/@]*(/|$)', value),
    'backend': _is_backend,
    'source': _is_source,
    'generation': lambda value: type(value) is int and 0 <= value < 2**62,
    'finished': lambda value: isinstance(value, bool),
}
