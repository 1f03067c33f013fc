"""Kinds of values: those that Python would take for something else are refused."""
import logging
from collections.abc import Iterable

from mmengine.config import Config

from .config_values import Keys, dotted, get, has


def check_kinds(before: Config, after: Config, changed: Iterable[Keys]) -> None:
    """Refuse true or false for a number, which would count as 1 or 0, and text for true or false, which is always true.

    Args:
        before (Config): The config without the options.
        after (Config): With them.
        changed (Iterable[Keys]): What the options set.

    Raises:
        ValueError: An option's value is of such a kind.
    """
    for keys in changed:
        if not has(before, keys) or not has(after, keys):
            continue
        old, new = get(before, keys), get(after, keys)
        if isinstance(new, bool) and isinstance(old, (int, float)) and not isinstance(old, bool):
            raise ValueError(f'{dotted(keys)} takes a number, as {old}, got {new}')
        if isinstance(new, str) and isinstance(old, bool) and keys != ('resume',):  # which takes a checkpoint as well
            raise ValueError(f'{dotted(keys)} takes true or false, got {new!r}')


def check_top(cfg: Config) -> None:
    """Refuse values at the top that MMEngine would take apart without a look.

    Args:
        cfg (Config): All layers merged.

    Raises:
        ValueError: One is of another kind.
    """
    level = cfg.get('log_level', 'INFO')
    if not isinstance(level, str) or not isinstance(logging.getLevelName(level), int):
        raise ValueError(f'log_level is one of DEBUG, INFO, WARNING, ERROR and CRITICAL, got {level!r}')
    imports = cfg.get('custom_imports') or {}
    names = imports.get('imports', []) if isinstance(imports, dict) else None
    if not isinstance(names, (str, list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'custom_imports is a dict with a list of modules, imports=[...], got {imports!r}')
