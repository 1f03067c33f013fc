"""Check the keys of a config: refuse unused ones and suggest the nearest valid key."""
import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable
from functools import cache

from mmengine.config import Config

from .layers import OPTIONS, Layers
from .values import Keys, dotted, get, walk

# Top-level keys that are read in addition to the runners' arguments: by MMEngine, and by this project.
_BY_MMENGINE = {'runner_type', 'custom_imports', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'compile',
                'activation_checkpointing', 'efficient_conv_bn_eval', 'init_weights_for_test_or_val', 'strategy'}
_BY_US = {'method', 'frames_from', 'prompts_in_all_layers', 'num_frames'}
# Keys that are removed from a component's arguments before it is built.
_ASIDE = {'type', 'priority', 'constructor', 'paramwise_cfg', 'optimizer', 'convert_to_iter_based', 'by_epoch', 'name'}
_MEANS = {'learning_rate': 'lr', 'wd': 'weight_decay', 'checkpoint': 'load_from', 'pretrained': 'load_from'}


def check_names(cfg: Config, layers: Layers) -> None:
    """Refuse unused top-level names.

    A variable that other values were made from counts as used. In a config dumped by a run, where every value is
    already in place, a name without any effect is allowed, but it can't be changed.

    Args:
        cfg (Config): Merged config.
        layers (Layers): Origin of its values.

    Raises:
        ValueError: An option's key does not exist, or a file sets a name that nothing uses; suggests the nearest one.
    """
    for name in dict.fromkeys([*cfg, *(keys[0] for keys in layers.option_keys)]):
        layer = layers.items[layers.sets(name)]
        # a file may have private names for its own use
        own = name.startswith('_') and layer.name != OPTIONS
        if name in _top_level() or own or layers.has_effect(name):
            continue
        keys = next((keys for keys, _ in layer.assigned if keys[0] == name), None)
        if layer.name == OPTIONS:
            raise ValueError(f'no key {dotted(keys)} in {cfg.filename or "the config"}, or none that is read'
                             + _or_rather(nearest(keys, cfg, (name,))))
        if keys is None or not layers.of_files or _stands_elsewhere(layer.value(()), name):
            continue
        # a single file may have been dumped by a run or a converter, with names that are no longer needed
        near = nearest(keys, cfg, (name,)) if layer.has_bases else _close(name, _top_level())
        if near:
            raise ValueError(f'{layer.name} sets {dotted(keys)}, which nothing reads{_or_rather(near)}')
        if layer.has_bases:
            warnings.warn(f'{layer.name} sets {name}, which nothing reads', stacklevel=3)


def check_arguments(cfg: Config, added: Iterable[Keys] = ()) -> None:
    """Refuse arguments that the components of a config don't accept.

    Args:
        cfg (Config): Merged config; its custom modules are registered.
        added (Iterable[Keys]): Keys added by options, also checked in dicts that accept any key. Defaults to none.

    Raises:
        ValueError: A component doesn't accept an argument (the message suggests the nearest one), or is of the wrong
            type for its place.
    """
    import vop_mm.datasets.transforms  # noqa: F401 - so that they are known
    from vop_mm.registry import BY_ARGUMENT

    for keys, part in walk(cfg):
        if not keys or not isinstance(part, dict):
            continue
        kind = part.get('type')
        if keys[0] == 'default_hooks' and len(keys) == 2 and kind is None:
            raise ValueError(f'{dotted((*keys, *list(part)[:1]))}: default_hooks has no {keys[-1]!r}, and no type is '
                             f'named for it{_did_you_mean(keys, cfg, cfg.default_hooks)}')
        registry = BY_ARGUMENT.get(keys[-1] if isinstance(keys[-1], str) else keys[-2])
        if isinstance(kind, str) and registry is not None and registry.parent is None:  # this project's own
            found = _registered(kind)
            if found and not set(found) & set(registry.module_dict.values()):
                raise ValueError(f'{dotted(keys)}: {kind} is no {registry.name}; there are '
                                 + ', '.join(registry.module_dict))
        taken, takes_any = _arguments_of(kind) if kind is not None else _taken_without_type(keys)
        for key in part:
            if key in taken or str(key).startswith('_') or (takes_any and not _close(key, taken)):
                continue
            what = dotted(keys) if kind is None else getattr(kind, '__name__', kind)
            raise ValueError(f'{dotted((*keys, key))}: {what} takes no {key!r}'
                             + _did_you_mean((*keys, key), cfg, taken))
    for keys in added:
        # in a dict that accepts any key: almost the same as another key
        parent = get(cfg, keys[:-1])
        if isinstance(parent, dict) and 'type' not in parent and _taken_without_type(keys[:-1])[1]:
            close = _close(keys[-1], [key for key in parent if key != keys[-1]])
            if close:
                raise ValueError(f'no key {dotted(keys)}: did you mean {dotted((*keys[:-1], close[0]))}?')


def nearest(keys: Keys, cfg: Config, without: Keys = ()) -> list[str]:
    """Find keys of a config that may have been meant instead of a missing one.

    Args:
        keys (Keys): Missing key.
        cfg (Config): The config.
        without (Keys): Keys below which nothing is suggested.

    Returns:
        list[str]: At most three keys with the same name, most similar first; otherwise the most similar key, if any.
    """
    there = [k for k, _ in walk(cfg) if k and k != keys and k[0] in _top_level()
             and not (without and k[:len(without)] == without)]
    there += [(name,) for name in sorted(_top_level()) if name not in cfg]
    last = _MEANS.get(keys[-1], keys[-1])
    same = [k for k in there if k[-1] == last]
    if same:
        if len(keys) > 1:
            same.sort(key=lambda k: -difflib.SequenceMatcher(None, dotted(keys), dotted(k)).ratio())
        return [dotted(k) for k in same[:3]]
    held = cfg.get(keys[0]) if len(keys) == 1 else None
    if isinstance(held, (dict, list)):
        equal = [k for k, value in walk(cfg) if len(k) > 1 and k[0] in _top_level() and value == held]
        if equal:
            return [dotted(k) for k in equal[:3]]

    def likeness(other: Keys) -> float:
        return max(difflib.SequenceMatcher(None, dotted(keys), dotted(other)).ratio(),
                   difflib.SequenceMatcher(None, str(keys[-1]), str(other[-1])).ratio() if len(keys) == 1 else 0)
    best = max(there, key=lambda k: (likeness(k), -len(k)), default=None)
    return [dotted(best)] if best and likeness(best) >= 0.7 else []


def _or_rather(near: list[str]) -> str:
    return f': did you mean {" or ".join(near)}?' if near else ''


def _did_you_mean(keys: Keys, cfg: Config, taken: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(keys[-1]), [k for k in taken if k != keys[-1]], 1, 0.6)
    if close:
        return f', did you mean {close[0]!r}?'
    below = [k for k in nearest(keys, cfg) if k.startswith(f'{dotted(keys[:-1])}.')]
    if below:
        return f', did you mean {below[0]}?'
    return f'; it takes {", ".join(sorted(k for k in taken if k not in _ASIDE))}'


def _stands_elsewhere(cfg: Config, name: str) -> bool:
    """Return True if a variable's value is found at a key of its name, or, for a dict or list, anywhere."""
    value = cfg[name]
    return any(len(keys) > 1 and keys[0] in _top_level() and other == value
               and (keys[-1] == name or isinstance(value, (dict, list))) for keys, other in walk(cfg))


@cache
def _top_level() -> frozenset[str]:
    from mmengine.runner import FlexibleRunner, Runner
    taken = {*inspect.signature(Runner.__init__).parameters, *inspect.signature(FlexibleRunner.__init__).parameters}
    # the runner takes data_preprocessor for a model without one; other tools don't
    return frozenset(taken - {'self', 'cfg', 'data_preprocessor'} | _BY_MMENGINE | _BY_US)


def _taken_without_type(keys: Keys) -> tuple[set[str], bool]:
    """Return the keys accepted by a dict without a type, by its position, and True if it accepts any others."""
    from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
    from torch.utils.data import DataLoader

    known = {
        'train_cfg': lambda: {*_parameters(EpochBasedTrainLoop.__init__), *_parameters(IterBasedTrainLoop.__init__)},
        'val_cfg': lambda: _parameters(ValLoop.__init__),
        'test_cfg': lambda: _parameters(TestLoop.__init__),
        'randomness': lambda: _parameters(Runner.set_randomness),
        'auto_scale_lr': lambda: {'enable', 'base_batch_size'},
        'env_cfg': lambda: {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
        'custom_imports': lambda: {'imports', 'allow_failed_imports'},
        **dict.fromkeys(('train_dataloader', 'val_dataloader', 'test_dataloader'),
                        lambda: {*_parameters(DataLoader.__init__), 'num_batch_per_epoch'})}
    if len(keys) == 1 and keys[0] in known:
        return known[keys[0]]() | _ASIDE, False
    if keys == ():
        return set(), False
    return set(), True


@cache
def _arguments_of(kind: str | type) -> tuple[frozenset[str], bool]:
    """Return the arguments of all registered components of a name, and True if they accept any others."""
    parts = [_arguments(part) for part in (_registered(kind) if isinstance(kind, str) else [kind])]
    taken = _ASIDE.union(*(arguments for arguments, _ in parts))
    return frozenset(taken), not parts or any(takes_any for _, takes_any in parts)


def _registered(name: str) -> list[Callable]:
    """Return the components of a name in all registries; only modules that are already imported are considered."""
    from mmengine.registry import Registry

    from vop_mm import registry

    scope, _, plain = name.rpartition('.')
    found = []
    for item in vars(registry).values():
        if isinstance(item, Registry) and item.scope == 'vop_mm':
            own = [item, item.parent] if not scope else [r for r in _family(item) if r.scope == scope]
            found += [part for r in own if r is not None and (part := r.module_dict.get(plain)) is not None]
    return found


def _family(registry) -> list:
    parent = registry.parent
    return [registry] if parent is None else [registry, parent, *parent.children.values()]


def _arguments(part: Callable) -> tuple[set[str], bool]:
    """Return the arguments of a function or class, including base classes, and True if it accepts any others."""
    functions = [part] if not inspect.isclass(part) else [
        vars(cls)['__init__'] for cls in part.__mro__[:-1] if '__init__' in vars(cls)]
    taken, takes_any = set(), False
    for function in functions:
        taken |= _parameters(function)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
        if not takes_any:
            break
    return taken, takes_any


def _close(key: str, others: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(str(key), list(others), 1, 0.85)


def _parameters(function: Callable) -> set[str]:
    return {p.name for p in inspect.signature(function).parameters.values()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != 'self'}
