"""Safe use of configs that come with data: an index, a checkpoint, prompts, features, a published file.

Such a config is untrusted. It is read without executing anything, reduced to the used parts, and completely checked
before any part is built: a ``type`` must name a class that is already registered in the registry of its place, and
arguments must be plain values within bounds. Nothing is imported for a name, and MMEngine, which would take a dotted
name for the path of any function, only sees names that were found here. Config files that a user passes explicitly are
Python code, and are not handled here.
"""
import ast
import inspect
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.registry import Registry

from vop_mm.registry import BY_ARGUMENT, MODELS, READERS, TRANSFORMS

from .architecture_file import read_architecture
from .cli import one_line
from .tokenizer_names import on_hub, open_clip_tokenizers

_SCOPE = 'vop_mm'
# mmaction2's transforms for frames, by their prefixed names
_FOREIGN_TRANSFORMS = frozenset(f'mmaction.{name}' for name in (
    'CenterCrop', 'Flip', 'RandomCrop', 'RandomResizedCrop', 'Resize', 'ThreeCrop'))
_BEFORE_READ_CLIP = ('IsolatedDecode', 'LoadCachedFrames', 'OpenVideo', 'OpenVideoTorchCodec', 'SampleSegments')
# keys that MMEngine acts on when it reads or builds a config
_OF_MMENGINE = frozenset(('init_cfg', 'custom_imports', 'default_scope', 'locations', 'lazy_import', 'load_from',
                          'resume', 'backend_args', 'file_client_args'))
_MAX_TEXT, _MAX_TOKENS = 200_000, 50_000  # limits of a config as text; those of this project have 10,000 characters
_MAX_DEPTH, _MAX_NODES, _MAX_PARTS, _MAX_STRING = 20, 10_000, 100, 4096
_MAX_NUMBER = 1_000_000
# individual limits
_MAX_BY_KEY = dict(layers=256, num_layers=32, num_tokens=4096, num_frames=4096, size=4096, crop_size=4096, scale=4096,
                   image_size=4096, context_length=8192, dim=65_536, num_threads=64, timeout=86_400, exact_up_to=2**40,
                   num_probes=2**31 - 1)
_MAX_PARAMETERS = 4_000_000_000  # the largest CLIP has 2.5 billion
_MAX_UNTRAINED = 250_000_000  # around CLIP, or in a CLIP without weights
_TOKEN = re.compile(r'''\s+|[A-Za-z_]\w*|-?\d[\w.]*(?:(?<=e)[+-]\d+)?|[][(){},:=]
                        |'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"''', re.DOTALL | re.VERBOSE)


class SharedConfigError(ValueError):
    """A config that came with data can't be used: it would do more than describe a model."""


def read_shared_config(text: str, with_backbone: bool = True) -> Config | None:
    """Read a config that came with data.

    Args:
        text (str): Config text as MMEngine writes it: ``name = value`` with dicts, lists and plain values.
        with_backbone (bool): False if another backbone will be used: this one is dropped unchecked. Defaults to True.

    Returns:
        Config: The used parts of the config: method, model, and test split with its frame and text pipeline.
        None if there is no model or no test pipeline.

    Raises:
        SharedConfigError: The text is not a plain config, or contains a part that is not allowed (named).
    """
    return shared_config(parse_config(text), with_backbone)


def shared_config(content: dict, with_backbone: bool = True) -> Config | None:
    """Reduce and check a parsed config; see :func:`read_shared_config`."""
    loader = content.get('test_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, dict) else None
    if not isinstance(content.get('model'), dict) or not isinstance(dataset, dict) or 'pipeline' not in dataset:
        return None
    used = {key: content[key] for key in ('method', 'model') if key in content}
    used['model'] = current_names(used['model'])
    if not with_backbone:
        used['model'] = {key: value for key, value in used['model'].items() if key != 'backbone'}
    dataset = {key: dataset[key] for key in ('data_root', 'data_prefix', 'ann_file', 'pipeline') if key in dataset}
    used['test_dataloader'] = dict(dataset=dataset)
    check_plain(used)
    check_part(used['model'], 'model', MODELS)
    if not isinstance(used['model'].get('data_preprocessor', {}), dict):  # MMEngine builds other types from a list
        raise SharedConfigError('model.data_preprocessor is not a component')
    backbone = used['model'].get('backbone')
    if with_backbone and (not isinstance(backbone, dict) or 'type' not in backbone):
        raise SharedConfigError('model.backbone has no type')
    if not isinstance(used.get('method'), (str, type(None))):
        raise SharedConfigError('method is not a string')
    _check_dataset(dataset)
    return Config(used)


def current_names(model: dict) -> dict:
    """Return a model config, possibly of an older version, with today's names: the backbone was called ``clip``."""
    if 'clip' not in model or 'backbone' in model:
        return model
    return {'backbone' if key == 'clip' else key: value for key, value in model.items()}


def parse_config(text: str) -> dict:
    """Parse the text of a config without executing it.

    Args:
        text (str): ``name = value`` with dicts, lists and plain values.

    Returns:
        dict: The values, without any further checks.

    Raises:
        SharedConfigError: The text contains anything else.
    """
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise SharedConfigError('not a plain config: no text, or a very long one')
    at = tokens = depth = 0
    while at < len(text):  # checked before Python's own parser, which deep nesting crashes on some versions
        token = _TOKEN.match(text, at)
        at, tokens = token.end() if token else at, tokens + 1
        if token and token[0] in '([{)]}':
            depth += 1 if token[0] in '([{' else -1
        if token is None or tokens > _MAX_TOKENS or depth > 2 * _MAX_DEPTH:
            raise SharedConfigError('not a plain config: more than names and values, or nested too deeply')
    try:
        return {statement.targets[0].id: _value(statement.value) for statement in ast.parse(text).body}
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        raise SharedConfigError('not a plain config') from None


def check_part(cfg: dict, place: str, registry: Registry) -> None:
    """Check a component config that came with data, including all nested ones, before it is built.

    Args:
        cfg (dict): Config with ``type`` and arguments.
        place (str): Key of the component in the config: ``'model'``, ``'backend'`` ...
        registry (Registry): Registry of its ``type``.

    Raises:
        SharedConfigError: A ``type`` is not registered, a component doesn't accept an argument, or a value is not plain
            or out of bounds; the message says where.
    """
    check_plain(cfg, place)
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise SharedConfigError(f'{place} has no type')
    _check_types(cfg, place, registry)


def build_part(cfg: dict, place: str, registry: Registry, **given):
    """Check a component config that came with data, and build it.

    Args:
        cfg (dict): Config with ``type`` and arguments.
        place (str): Key of the component in the config: ``'backend'`` ...
        registry (Registry): Registry of its ``type``.
        **given: Additional arguments that do not come with data.

    Returns:
        Any: The component.

    Raises:
        SharedConfigError: :func:`check_part` failed, or the component refused an argument's value.
    """
    check_part(cfg, place, registry)
    with building(place):
        return registry.build(dict(cfg, **given))


def check_plain(value, where: str = '', leaves: tuple = (), max_nodes: int = _MAX_NODES, max_string: int = _MAX_STRING,
                bounded: bool = True) -> None:
    """Check that a value is plain: None, bool, int, float, str, and lists, tuples and dicts of them.

    Args:
        value (Any): The value.
        where (str): Its name for error messages.
        leaves (tuple): Additional allowed types. Defaults to none.
        max_nodes (int): Maximum total number of values.
        max_string (int): Maximum length of a text.
        bounded (bool): True for a config, whose numbers are bounded and whose keys are names. Defaults to True.

    Raises:
        SharedConfigError: A value has another type, a number is too large, a text too long, or there are too many
            values or too many levels; the message says where.
    """
    # A place is (place of the parent, key) and is formatted only for an error, because a long key may precede any
    # number of items.
    todo, count, parts = [((None, where), '', value, 0)], 0, 0
    while todo:
        place, key, value, depth = todo.pop()
        count += 1
        parts += bounded and isinstance(value, dict) and 'type' in value
        if depth > _MAX_DEPTH or count > max_nodes or parts > _MAX_PARTS:
            raise SharedConfigError(f'{_place(place)} is nested too deeply, or holds too much')
        if isinstance(value, dict):
            for name, item in value.items():
                if (bounded and not (isinstance(name, str) and name.isidentifier() and len(name) < 100)
                        or not isinstance(name, (str, int)) or isinstance(name, str) and len(name) > max_string):
                    raise SharedConfigError(f'{_place(place)} has the key {name!r:.50}')
                if bounded and (name.startswith('_') or name in _OF_MMENGINE):
                    raise SharedConfigError(f'{_place(place)} has the key {name}, which a config that comes with data '
                                            'may not use')
                todo.append(((place, name), name, item, depth + 1))
        elif isinstance(value, (list, tuple)):
            if len(value) > max_nodes:
                raise SharedConfigError(f'{_place(place)} holds too much')
            todo += [((place, i), key, item, depth + 1) for i, item in enumerate(value)]
        elif isinstance(value, str):
            if len(value) > max_string:
                raise SharedConfigError(f'{_place(place)} is a text of {len(value)} characters')
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            most = _MAX_BY_KEY.get(key, _MAX_NUMBER) if bounded else math.inf
            if bounded and not -most <= value <= most:  # also refuses NaN
                raise SharedConfigError(f'{_place(place)} is {value!r:.30}, the maximum is {most}'
                                        if isinstance(value, float) or abs(value) < 2**100 else
                                        f'{_place(place)} is a number of {value.bit_length()} bits')
        elif not (value is None or isinstance(value, (bool, *leaves))):
            raise SharedConfigError(f'{_place(place)} is not a plain value but {type(value).__name__}')


def _place(place: tuple) -> str:
    keys = []
    while place is not None:
        place, key = place
        keys.append(f'{key!s:.200}')
    return '.'.join(key for key in reversed(keys) if key)[:200]


def check_size(model: dict) -> None:
    """Build a model that came with data on the meta device, and refuse one that is inconsistent or too large.

    Args:
        model (dict): Model config, already checked.

    Raises:
        SharedConfigError: The model can't be built, or is too large.
    """
    backbone = dict(model['backbone'])
    backbone.pop('compile', None)
    weights = backbone.pop('weights', None)
    beside = read_architecture(backbone['arch'], weights) if isinstance(backbone.get('arch'), str) else None
    if beside is not None:
        check_plain(beside, f'{backbone["arch"]}.json')
        backbone['arch'] = beside
    with building('the model'), torch.device('meta'):
        built = MODELS.build({**model, 'backbone': backbone})
        inside = sum(p.numel() for p in built.backbone.parameters())
        around = sum(p.numel() for p in built.parameters()) - inside
    if inside > (_MAX_UNTRAINED if weights is None else _MAX_PARAMETERS) or around > _MAX_UNTRAINED:
        without = ' (no weights)' if weights is None else ''
        raise SharedConfigError(f'the model has {inside:,} parameters in CLIP{without} and {around:,} around it: that '
                                'is more than any of this project')


@contextmanager
def building(what: str) -> Iterator[None]:
    """Convert errors that components raise for invalid arguments into one line.

    Args:
        what (str): Name of what is being built.

    Raises:
        SharedConfigError: Replaces ``TypeError`` and similar errors, and a ``ValueError`` without further type. More
            specific errors are passed on.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, MemoryError, RecursionError) as e:
        raise SharedConfigError(f'{what} cannot be built from this config: {one_line(e):.300}') from e
    except ValueError as e:
        if type(e) not in (ValueError, SharedConfigError):
            raise
        raise SharedConfigError(f'{what} cannot be used: {one_line(e).removeprefix("ValueError: "):.300}') from e


def _check_types(value, where: str, registry: Registry) -> None:
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_types(item, f'{where}.{i}', registry)
    if not isinstance(value, dict):
        return
    if 'type' in value:
        kind = _registered(value['type'], where, registry)
        parameters = inspect.signature(kind).parameters
        unknown = value.keys() - parameters.keys() - {'type'}
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise SharedConfigError(f'{where}: {value["type"]} has no argument {min(unknown)}')
        _check_clip(value, where)
        if kind.__name__ == 'HFTokenizer':
            _check_tokenizer(value, where)
    for key, item in value.items():
        _check_types(item, f'{where}.{key}', BY_ARGUMENT.get(key, registry))


def _registered(name, where: str, registry: Registry) -> type:
    if isinstance(name, str):
        registry.import_from_location()
        own = name.removeprefix(f'{_SCOPE}.')
        found = registry.module_dict.get(own) if '.' not in own else None
        if found is None and registry is TRANSFORMS and name in _FOREIGN_TRANSFORMS:
            from mmaction.registry import TRANSFORMS as THEIRS
            found = THEIRS.module_dict.get(name.removeprefix('mmaction.'))
        if found is not None:
            return found
        if registry is TRANSFORMS and own in _BEFORE_READ_CLIP:
            raise SharedConfigError(
                f'{where} has the type {name}: an older version of vop_mm made it, from before ReadClip. Of an index: '
                'index again, into another folder, with --config of this version and its --checkpoint. The prompts of '
                'a checkpoint are good: use it alone with a config of this version, or write that into it with '
                'tools/model_converters/publish_model.py --config')
    raise SharedConfigError(
        f'{where} has the type {name!r:.80}, and no {registry.name} of this name is registered here. A config that '
        'comes with data can only name registered components; if it is your own, import its module first (tools: '
        '--import MODULE)')


def _check_clip(cfg: dict, where: str) -> None:
    """Check the arguments of a CLIP anywhere in a config, which decide on files to download, read and write."""
    for key, allowed in (('weights', r'(?!hf-hub:|\w[\w+.-]*://).+'), ('arch', r'[\w.-]+')):
        if isinstance(cfg.get(key), str) and not re.fullmatch(allowed, cfg[key], re.DOTALL):
            raise SharedConfigError(f'{where}.{key} is {cfg[key]!r:.80}: a config that comes with data can name an '
                                    'architecture and weights of open_clip, or a local file')
    if not isinstance(cfg.get('weights'), (str, type(None))):
        raise SharedConfigError(f'{where}.weights is not a string')
    if cfg.get('weights') is not None and where != 'model.backbone':
        raise SharedConfigError(f'{where}.weights: weights are those of model.backbone')
    # a folder to write to, and compiler options: users who want them must pass them explicitly
    if cfg.get('cache_dir') is not None or not isinstance(cfg.get('compile', False), bool):
        raise SharedConfigError(f'{where}.cache_dir and options of {where}.compile must not come with data: set them '
                                'yourself')


def _check_tokenizer(cfg: dict, where: str) -> None:
    """Check the name of a tokenizer, which decides on files to download."""
    name = cfg.get('name')
    if not isinstance(name, str):
        raise SharedConfigError(f'{where}.name is not a string')
    if on_hub(name) and name not in open_clip_tokenizers():
        raise SharedConfigError(f'{where}.name is {name!r:.80}: a config that comes with data can name a tokenizer of '
                                'open_clip\'s architectures, or a local folder')


def _check_dataset(dataset: dict) -> None:
    for key in ('data_root', 'ann_file'):
        if not isinstance(dataset.get(key), (str, type(None))):
            raise SharedConfigError(f'test_dataloader.dataset.{key} is not a string')
    prefix = dataset.get('data_prefix') or {}
    if not isinstance(prefix, dict) or not all(isinstance(value, (str, type(None))) for value in prefix.values()):
        raise SharedConfigError('test_dataloader.dataset.data_prefix is of another form')
    pipeline, where = dataset['pipeline'], 'test_dataloader.dataset.pipeline'
    _check_types(pipeline, where, TRANSFORMS)
    _check_steps(pipeline, where)


def _check_steps(steps, where: str) -> None:
    """Check that a pipeline is a list of transforms, some of which contain others."""
    if not isinstance(steps, (list, tuple)):
        raise SharedConfigError(f'{where} is not a list of transforms')
    for i, step in enumerate(steps):
        if not isinstance(step, dict) or not isinstance(step.get('type'), str):
            raise SharedConfigError(f'{where}.{i} has no type')
        READERS.import_from_location()
        if not isinstance(step.get('reader', ''), str) or step.get('reader', 'PyAVReader') not in READERS.module_dict:
            raise SharedConfigError(f'{where}.{i}.reader is {step["reader"]!r:.80}, and no reader of this name is '
                                    'registered here')
        if step.get('store') is not None:
            raise SharedConfigError(f'{where}.{i}.store: a frame store must not come with data: name it yourself')
        if 'transforms' in step:
            _check_steps(step['transforms'], f'{where}.{i}.transforms')


def _value(node: ast.expr):
    if isinstance(node, ast.Call):
        if node.func.id != 'dict' or node.args:
            raise ValueError('a call')
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(item) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)
