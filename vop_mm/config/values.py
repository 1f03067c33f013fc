"""Access values of a config by their keys."""
from collections.abc import Iterator

from mmengine.config import Config

Keys = tuple[str | int, ...]  # ('train_pipeline', 0, 'timeout')


def has(value, keys: Keys) -> bool:
    """Return True if there is a value at keys."""
    try:
        get(value, keys)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def get(value, keys: Keys):
    """Return the value at keys; raise KeyError, IndexError or TypeError if there is none."""
    for key in keys:
        value = value[key]
    return value


def put(value, keys: Keys, new) -> None:
    """Set the value at keys, whose parents must exist."""
    parent = get(value, keys[:-1])
    if isinstance(parent, tuple):  # replace the tuple by a new one
        put(value, keys[:-1], (*parent[:keys[-1]], new, *parent[keys[-1] + 1:]))
    else:
        parent[keys[-1]] = new


def starts(keys: Keys, start: Keys) -> bool:
    """Return True if keys are equal to ``start`` or below it."""
    return keys[:len(start)] == start


def dotted(keys: Keys) -> str:
    """Format keys as on the command line: ``train_pipeline.0.timeout``."""
    return '.'.join(map(str, keys))


def walk(value, keys: Keys = ()) -> Iterator[tuple[Keys, object]]:
    """Yield all values below a value with their keys, starting with the value itself."""
    yield keys, value
    if isinstance(value, (dict, Config)):
        for key, item in value.items():
            yield from walk(item, (*keys, key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from walk(item, (*keys, i))
