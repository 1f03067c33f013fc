"""Config files, as every tool reads them."""
import ast
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from mmengine.config import Config


def read_config(config: str | Path | Config, options: Sequence[str] | dict | None = None) -> Config:
    """Read a config and change it.

    Args:
        config (str | Path | Config): The file, or what was read from it, which stays as it is.
        options (Sequence[str] | dict, optional): ``KEY=VALUE`` as given to ``--cfg-options``, or a dict of them.

    Returns:
        Config: Of its own.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: An option without ``=`` or one that doesn't fit the config.
    """
    if isinstance(config, Config):
        cfg = config.copy()
    elif Path(config).is_file():
        cfg = Config.fromfile(config)
    else:
        raise FileNotFoundError(f'config not found: {config}')
    try:
        cfg.merge_from_dict(options if isinstance(options, dict) else parse_options(options or []))
    except (TypeError, KeyError, IndexError) as e:
        raise ValueError(f'--cfg-options don\'t fit {cfg.filename or "the config"}: {e}') from e
    return cfg


def require_checkpoint(cfg: Config, checkpoint: str | None, what_for: str) -> None:
    """Refuse to use prompts that nothing has trained.

    Args:
        cfg (Config): From :func:`read_config`.
        checkpoint (str | None): The file that was named, if one was.
        what_for (str): What it is needed for, ``'to evaluate'``.

    Raises:
        ValueError: None was, and the config trains.
    """
    if checkpoint is None and cfg.get('train_cfg') is not None:
        raise ValueError(f'{cfg.filename} trains: name the checkpoint {what_for}')


def parse_options(options: Sequence[str]) -> dict:
    """``['a.b=1e-3', 'c=[x, y]', 'd={"type": "T"}']`` to a dict.

    Args:
        options (Sequence[str]): ``KEY=VALUE`` each. A value is read as Python or YAML writes it (numbers, true, none,
            lists, tuples, dicts); what is neither is text, blanks and all.

    Returns:
        dict: Keys as given.

    Raises:
        ValueError: An option without ``=``.
    """
    parsed = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not equals or not key:
            raise ValueError(f'--cfg-options takes KEY=VALUE, got {option!r}')
        parsed[key] = _parse_value(value)
    return parsed


def _parse_value(text: str):
    with suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    if text.lower() == 'none':
        return None
    with suppress(yaml.YAMLError):
        return yaml.safe_load(text)
    return text
