"""Read config files; used by every tool."""
import ast
import copy
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from vop_mm.utils import register_all_modules
from vop_mm.utils.shared_config import current_names

from .keys import check_arguments, check_names
from .kinds import check_kinds, check_top
from .layers import Layers
from .meaning import carry_frames, carry_length, check_frames
from .preprocessing import use_declared
from .values import Keys, has


def read_config(config: str | Path | Config, options: Sequence[str] | dict | None = None) -> Config:
    """Read a config and apply changes to it.

    A value changed by an option or a child config is also changed wherever the config repeats it: in places made from a
    variable (``num_frames``, ``data_root``, ``train_pipeline`` ...), in the frames of model and data, and in the length
    of training and its schedules. Changes that can't be applied are refused. What pipelines don't say about frames and
    words is filled in from the backbone.

    Args:
        config (str | Path | Config): Config file, or a loaded config, which is not modified.
        options (Sequence[str] | dict, optional): ``KEY=VALUE`` as given to ``--cfg-options``, or a dict.

    Returns:
        Config: A new config.

    Raises:
        FileNotFoundError: The config file is missing.
        ImportError: A module of ``custom_imports`` can't be imported.
        ValueError: An option has no ``=`` or doesn't fit the config; a key is not used by anything, or an argument is
            not accepted by its component; model and data disagree on the number of frames.
    """
    options = copy.deepcopy(options) if isinstance(options, dict) else parse_options(options or [])
    options = {re.sub(r'^model\.clip\b', 'model.backbone', key): value for key, value in options.items()}  # older name
    if 'frames_from' in options:
        raise ValueError('frames_from is for training and evaluation alone: tools/train.py and tools/test.py')
    if isinstance(config, Config):
        cfg = _with_current_names(copy.deepcopy(config))
        layers = Layers(copy.deepcopy(cfg))
        if not options:
            carry_frames(cfg, layers)
            use_declared(cfg)
            return cfg
    elif Path(config).is_file():
        cfg = _with_current_names(Config.fromfile(config, import_custom_modules=False))
        options = {_of_first_metric(key, cfg): value for key, value in options.items()}
        layers = Layers(copy.deepcopy(cfg), config)
    else:
        raise FileNotFoundError(f'config not found: {config}')
    added: list[Keys] = []
    if options:
        layers.add_options(options)
        added = [keys for keys in layers.option_keys if not has(cfg, keys)]
        before = copy.deepcopy(cfg)
        try:
            cfg.merge_from_dict(options)
        except (TypeError, KeyError, IndexError, AttributeError) as e:
            raise ValueError(f'--cfg-options don\'t fit {cfg.filename or "the config"}: {e}') from e
        check_kinds(before, cfg, layers.option_keys)
    layers.carry(cfg)
    carry_frames(cfg, layers)
    carry_length(cfg, layers)
    check_names(cfg, layers)
    check_top(cfg)
    register_all_modules()
    # the modules that a config object names may come from untrusted data
    named = not isinstance(config, Config) or {('custom_imports',), ('custom_imports', 'imports')} & {
        keys[:2] for keys in layers.option_keys}
    if named and cfg.get('custom_imports'):
        check_arguments(Config(dict(custom_imports=cfg.custom_imports)))
        # a list replaces that of a base config, whose own modules are still needed
        cfg.custom_imports.imports = list(dict.fromkeys([*layers.imports(), *cfg.custom_imports.imports]))
        import_custom_modules(**cfg.custom_imports)
    check_arguments(cfg, [keys for keys in added if has(cfg, keys)])
    check_frames(cfg)
    use_declared(cfg)
    return cfg


def _with_current_names(cfg: Config) -> Config:
    """Convert the config of an older run."""
    if isinstance(cfg.get('model'), dict) and 'clip' in cfg.model:
        if 'backbone' in cfg.model:
            raise ValueError(f'{cfg.filename}: model.clip is called model.backbone: rename it')
        cfg.model = current_names(cfg.model)
    hooks = cfg.get('default_hooks') or {}
    if (hooks.get('invalid_loss') or {}).get('type') == 'CheckInvalidLossHook':  # its successor does more
        hooks.pop('invalid_loss')
        hooks.setdefault('runtime_info', dict(type='BufferedRuntimeInfoHook'))
    return cfg


def import_custom_modules(imports: list[str], allow_failed_imports: bool = False) -> None:
    """Import the modules that a config names.

    The clone that holds vop_mm and the working directory are searched last, so that they can't shadow libraries.

    Args:
        imports (list[str]): Module names.
        allow_failed_imports (bool): Continue if a module can't be imported. Defaults to ``False``.

    Raises:
        ImportError: A module can't be imported.
    """
    here = os.getcwd()
    sys.path += [folder for folder in (str(Path(__file__).resolve().parents[2]), here) if folder not in sys.path]
    try:
        import_modules_from_strings(imports, allow_failed_imports)
    except ImportError as e:
        raise ImportError(f'custom imports: {e.__cause__ or e}. Modules are looked for in installed '
                          f'packages, PYTHONPATH, the clone of vop_mm and the working directory, {here}') from e


def _of_first_metric(key: str, cfg: Config) -> str:
    """Return an option's key; one of an evaluator with several metrics concerns the first if it names none."""
    evaluator, _, rest = key.partition('.')
    several = evaluator.endswith('_evaluator') and isinstance(cfg.get(evaluator), list)
    return f'{evaluator}.0.{rest}' if several and rest and not rest[0].isdigit() else key


def require_checkpoint(cfg: Config, checkpoint: str | None, what_for: str) -> None:
    """Refuse to use prompts that were never trained.

    Args:
        cfg (Config): Result of :func:`read_config`.
        checkpoint (str | None): Checkpoint file, if one was given.
        what_for (str): Purpose for the error message, ``'to evaluate'``.

    Raises:
        ValueError: There is no checkpoint, but the config trains.
    """
    if checkpoint is None and cfg.get('train_cfg') is not None:
        raise ValueError(f'{cfg.filename} trains: name the checkpoint {what_for}')


def parse_options(options: Sequence[str], named: str = '--cfg-options') -> dict:
    """Parse ``['a.b=1e-3', 'c=[x, y]', 'd={"type": "T"}']`` into a dict.

    Args:
        options (Sequence[str]): ``KEY=VALUE`` each. A value is parsed as Python or YAML (numbers, true, none, lists,
            tuples, dicts); anything else is text, including spaces.
        named (str): Name of the tool's option, for error messages. Defaults to ``'--cfg-options'``.

    Returns:
        dict: Values by the keys as given.

    Raises:
        ValueError: An option has no ``=``.
    """
    parsed = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not equals or not key:
            raise ValueError(f'{named} takes KEY=VALUE, got {option!r}')
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
