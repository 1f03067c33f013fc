"""Complete data pipelines from the backbone's preprocessing, and warn if they disagree."""
import inspect
import warnings
from collections.abc import Iterator

import numpy as np
from mmengine.config import Config

from vop_mm.registry import MODELS, TOKENIZERS, TRANSFORMS

from .values import put, walk


class ConfigWarning(UserWarning):
    """A config disagrees with what its backbone declares."""


def use_declared(cfg: Config) -> None:
    """Fill in values that pipelines omit from the backbone's preprocessing; warn about other values.

    The backbone is not built, and its weights are not read. Filled in are the interpolation of ``ReadClip`` and
    ``ResizeFrames``, the size of ``ResizeFrames`` and ``mmaction.CenterCrop``, the tokenizer of ``TokenizeText``, and,
    if no step has a size, all steps from a video to frames of the right size. Mean and standard deviation are set by
    :meth:`VideoTextPreprocessor.prepare`.

    Args:
        cfg (Config): Config, modified in place. Without a registered backbone, nothing is changed.

    Raises:
        ValueError: The preprocessing is unknown, or a pipeline omits more than can be filled in.
    """
    model = cfg.get('model')
    backbone = model.get('backbone') if isinstance(model, dict) else None
    kind = _registered(MODELS, backbone.get('type')) if isinstance(backbone, dict) else None
    if not hasattr(kind, 'preprocessing_of'):
        return
    declared = kind.preprocessing_of(**{key: value for key, value in backbone.items() if key != 'type'})
    found = [(keys, value) for keys, value in walk(cfg) if _is_pipeline(value)]
    for keys, pipeline in found:
        put(cfg, keys, _completed(pipeline, declared))
    disagreements = list(_normalization(model, declared))
    for split in ('train', 'val', 'test'):
        for _, value in walk(cfg.get(f'{split}_dataloader')):
            if _is_pipeline(value):
                disagreements += [line for line in _frames(value, declared) if line not in disagreements]
    if disagreements:
        warnings.warn(f'the config and its backbone, {kind.__name__}, disagree: {"; ".join(disagreements)}',
                      ConfigWarning, stacklevel=3)


def _completed(pipeline: list[dict], declared) -> list[dict]:
    read, *steps = (dict(step) for step in pipeline)
    height, width = declared.size
    crops = [step for step in steps if _name(step) == 'CenterCrop' and step.get('crop_size') is None]
    if read.get('size') is None and all(step in crops or _name(step) in ('Flip', 'TokenizeText', 'PackVideoText')
                                        for step in steps):
        if declared.resize == 'squash':
            read['size'] = declared.size
        elif height == width:  # the sizes of another shape's short side would depend on the video
            read['size'] = height
            steps = steps if crops else [dict(type='mmaction.CenterCrop'), *steps]
        else:
            raise ValueError(f'a pipeline says no size, and frames of {declared.size} pixels can\'t be cropped from '
                             'their short side: name the steps that make them')
    for step in (read, *steps):
        if _name(step) == 'ResizeFrames':
            step.setdefault('size', declared.size)
        elif _name(step) == 'CenterCrop':
            step.setdefault('crop_size', height if height == width else (width, height))
        elif _name(step) == 'TokenizeText' and declared.tokenizer is not None:
            step.setdefault('tokenizer', dict(declared.tokenizer))
        if step.get('size') is not None and declared.interpolation != 'bicubic':  # the default of both transforms
            step.setdefault('interpolation', declared.interpolation)
    return [read, *steps]


def _normalization(model: dict, declared) -> Iterator[str]:
    given = model.get('data_preprocessor')
    for name in ('mean', 'std') if isinstance(given, dict) and not declared.assumed else ():
        value, wanted = given.get(name), getattr(declared, name)
        if isinstance(value, (list, tuple)) and not np.allclose(value, wanted, rtol=0, atol=1e-3):
            yield f'model.data_preprocessor.{name} is {tuple(value)}, the weights want {tuple(wanted)}'


def _frames(pipeline: list[dict], declared) -> Iterator[str]:
    read, *steps = pipeline
    names, size = [_name(step) for step in steps], read.get('size')
    for name, step in zip(names, steps):
        if name in ('ResizeFrames', 'CenterCrop', 'RandomCrop'):
            size = step.get('size', step.get('crop_size'))
            if name != 'ResizeFrames':
                size = (size, size) if isinstance(size, int) else size and tuple(size)[::-1]  # mmaction: width, height
        elif name == 'TokenizeText':
            if isinstance(step.get('tokenizer'), dict) and declared.tokenizer is not None:
                yield from _tokenizer(step['tokenizer'], declared.tokenizer)
        elif name not in ('Flip', 'PackVideoText'):
            size = None  # of a step that nothing is known of
    wanted = min(declared.size) if isinstance(size, int) else declared.size
    if size is not None and (size if isinstance(size, int) else tuple(size)) != wanted:
        yield f'frames have the size {size}, the model takes {wanted}'
    if declared.assumed or read.get('size') is None:
        return
    if names[:1] in (['CenterCrop'], ['TokenizeText']):
        resize = 'shortest' if isinstance(read['size'], int) else 'squash'
        if resize != declared.resize:
            yield f'frames are resized by {resize!r}, the weights want {declared.resize!r}'
    if read.get('interpolation', 'bicubic') != declared.interpolation:
        yield f'the interpolation is {read["interpolation"]!r}, the weights want {declared.interpolation!r}'


def _tokenizer(given: dict, wanted: dict) -> Iterator[str]:
    if _name(given) != _name(wanted):
        yield f'the tokenizer is {_name(given)}, the weights want {_name(wanted)}'
        return
    arguments = inspect.signature(_registered(TOKENIZERS, wanted['type'])).parameters
    for key in (key for key in arguments if key in given or key in wanted):
        value, other = (config.get(key, arguments[key].default) for config in (given, wanted))
        if value != other:
            yield f'the tokenizer has the {key} {value!r}, the weights want {other!r}'


def _is_pipeline(value) -> bool:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(step, dict) for step in value):
        return False
    kind, read = _registered(TRANSFORMS, value[0].get('type')), _registered(TRANSFORMS, 'ReadClip')
    return isinstance(kind, type) and issubclass(kind, read)


def _registered(registry, name):
    """Return a registered class; unlike ``registry.get``, it imports nothing for a dotted name."""
    registry.import_from_location()
    return registry.module_dict.get(name.removeprefix('vop_mm.')) if isinstance(name, str) else name


def _name(step: dict) -> str:
    return getattr(step.get('type'), '__name__', str(step.get('type'))).rpartition('.')[2]
