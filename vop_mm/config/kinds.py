"""Check the types of values, where Python would silently misinterpret one type as another."""
import logging
from collections.abc import Iterable

from mmengine.config import Config

from .values import Keys, dotted, get, has


def check_kinds(before: Config, after: Config, changed: Iterable[Keys]) -> None:
    """Refuse a bool for a number (it would count as 0 or 1), and text for a bool (it would always be true).

    Args:
        before (Config): The config without the options.
        after (Config): The config with the options.
        changed (Iterable[Keys]): Keys that the options set.

    Raises:
        ValueError: An option's value has such a type.
    """
    for keys in changed:
        if not has(before, keys) or not has(after, keys):
            continue
        old, new = get(before, keys), get(after, keys)
        if isinstance(new, bool) and isinstance(old, (int, float)) and not isinstance(old, bool):
            raise ValueError(f'{dotted(keys)} takes a number, as {old}, got {new}')
        if isinstance(new, str) and isinstance(old, bool) and keys != ('resume',):  # it accepts a checkpoint as well
            raise ValueError(f'{dotted(keys)} takes true or false, got {new!r}')


def check_top(cfg: Config) -> None:
    """Refuse top-level values that MMEngine would use without checking their type.

    Args:
        cfg (Config): Merged config.

    Raises:
        ValueError: A value has the wrong type.
    """
    level = cfg.get('log_level', 'INFO')
    if not isinstance(level, str) or not isinstance(logging.getLevelName(level), int):
        raise ValueError(f'log_level is one of DEBUG, INFO, WARNING, ERROR and CRITICAL, got {level!r}')
    imports = cfg.get('custom_imports') or {}
    names = imports.get('imports', []) if isinstance(imports, dict) else None
    if not isinstance(names, (str, list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'custom_imports is a dict with a list of modules, imports=[...], got {imports!r}')
