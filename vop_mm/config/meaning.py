"""Keep values consistent that a config repeats: number of frames, and length of training."""
from collections.abc import Callable, Iterator

from mmengine.config import Config

from .layers import Layers
from .values import Keys, dotted, put, walk

_FRAMES, _MODEL_FRAMES = ('num_frames',), ('model', 'num_frames')
_LENGTHS = {'max_epochs': True, 'max_iters': False}  # keys of train_cfg, with True if their schedules count epochs


def carry_frames(cfg: Config, layers: Layers) -> None:
    """Set ``num_frames``, ``model.num_frames`` and the sampling of all splits to the number that was set last.

    Args:
        cfg (Config): Merged config, modified in place.
        layers (Layers): Origin of its values.
    """
    if cfg.get('model') is None:
        return
    named, model = layers.last(_FRAMES), layers.last(_MODEL_FRAMES)
    if named is not None and (layers.overrides(named, model) or model is None):
        layer, frames = named, cfg.num_frames
        layers.set(cfg, _MODEL_FRAMES, frames, layer)
    elif layers.overrides(model, named) or (model is not None and named is None):
        layer, frames = model, cfg.model.num_frames
        if 'num_frames' in cfg:
            layers.set(cfg, _FRAMES, frames, layer)
    else:
        return
    layers.carry(cfg)
    for keys, _ in _sampled(cfg):
        before = layers.last(keys)
        if keys[-1] == 'num_frames' and (before is None or layers.overrides(layer, before)):
            layers.set(cfg, keys, frames, layer)


def check_frames(cfg: Config) -> None:
    """Refuse a config whose model and data disagree on the number of frames.

    Args:
        cfg (Config): The config.

    Raises:
        ValueError: The numbers differ (the message names the key that changes both), or the number is invalid.
    """
    model = cfg.get('model') or {}
    frames = model.get('num_frames')
    if 'num_frames' in model and (type(frames) is not int or frames < 1):
        raise ValueError(f'{dotted(_MODEL_FRAMES)} must be a whole number, at least 1, got {frames!r}')
    for keys, sampled in _sampled(cfg):
        if isinstance(frames, int) and isinstance(sampled, int) and sampled != frames:
            change = f'num_frames={frames}' if 'num_frames' in cfg else f'{dotted(_MODEL_FRAMES)} and {dotted(keys)}'
            raise ValueError(f'the model takes {frames} frames of a video (model.num_frames), '
                             f'{keys[0].removesuffix("_dataloader")} data have {sampled} ({dotted(keys)}): set {change}'
                             + (', which changes both' if 'num_frames' in cfg else ' to the same'))


def _sampled(cfg: Config) -> Iterator[tuple[Keys, int]]:
    """Yield the key and the number of frames of each sampling transform of all splits."""
    for split in ('train', 'val', 'test'):
        for keys, part in walk(cfg.get(f'{split}_dataloader')):
            if isinstance(part, dict) and 'type' in part and ('pipeline' in keys or 'transforms' in keys):
                if 'num_frames' in part:
                    yield (f'{split}_dataloader', *keys, 'num_frames'), part['num_frames']
                elif 'clip_len' in part:  # transform of mmaction2
                    yield (f'{split}_dataloader', *keys, 'clip_len'), part['clip_len'] * part.get('num_clips', 1)


def carry_length(cfg: Config, layers: Layers) -> None:
    """Adapt schedules if a later layer changed the length of training.

    Args:
        cfg (Config): Merged config, modified in place.
        layers (Layers): Origin of its values.

    Raises:
        ValueError: The length is less than 1.
    """
    for length, by_epoch in _LENGTHS.items():
        after = (cfg.get('train_cfg') or {}).get(length)
        if isinstance(after, int) and after < 1:
            raise ValueError(f'train_cfg.{length} must be at least 1, got {after}')
        layer, base = layers.last(('train_cfg', length)), layers.first('param_scheduler') or 0
        if not layers.overrides(layer, base):
            continue
        try:
            before = layers.items[base].value(('train_cfg', length))
        except (KeyError, TypeError):  # a file with schedules only
            continue
        if not isinstance(after, int) or not isinstance(before, int):  # refused by the loop
            continue
        stretch(cfg, before, after, by_epoch,
                lambda keys, layer=layer: layers.last(keys) is None or layers.overrides(layer, layers.last(keys)))


def stretch(cfg: Config, before: int, after: int, by_epoch: bool = True,
            may: Callable[[Keys], bool] = lambda keys: True) -> None:
    """Adapt schedules that end with training to its new length.

    Args:
        cfg (Config): Config, modified in place.
        before (int): Old length of training, in epochs or iterations.
        after (int): New length.
        by_epoch (bool): True if the length counts epochs. Defaults to True.
        may (Callable): Returns True if the value at keys may be changed. Defaults to all.
    """
    schedules = cfg.get('param_scheduler') or []
    for i, schedule in enumerate([schedules] if isinstance(schedules, dict) else schedules):
        if schedule.get('by_epoch', True) != by_epoch:
            continue
        where = ('param_scheduler',) if isinstance(schedules, dict) else ('param_scheduler', i)
        begin = schedule.get('begin', 0)
        changed = {key: after - before + schedule[key] for key in ('T_max', 'total_steps')
                   if schedule.get(key) in (before, before - begin)}
        if schedule.get('end') == before:
            changed['end'] = after
        if schedule.get('milestones'):
            changed['milestones'] = sorted({max(1, round(m * after / before)) for m in schedule.milestones})
        for key, value in changed.items():
            if value != schedule[key] and (key == 'milestones' or value > 0) and may((*where, key)):
                put(cfg, (*where, key), value)
