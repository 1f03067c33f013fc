"""Checkpoints: what they hold, how they are read safely, and how they are matched with a model.

A checkpoint holds tensors and plain Python values only, so that ``torch.load(weights_only=True)`` reads it on every
version of torch; what MMEngine keeps as objects (the history of its logs) is turned into plain values and back.
"""
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from vop_mm.models.tuning import trainable_state_dict
from vop_mm.version import __version__

_META_KEY = 'vop_mm'
# MMEngine's remote schemes keep their own loaders; everything else is a local path
_LOCAL = ''


class CheckpointError(ValueError):
    """A checkpoint that can't be read, is not safe to read, or belongs to another model."""


@CheckpointLoader.register_scheme(prefixes=_LOCAL, force=True)
def load_from_local_safely(filename: str, map_location=None) -> dict:
    """Read a checkpoint, running nothing that is in it. MMEngine's ``Runner`` reads local files through this.

    Args:
        filename (str): A file of ``torch.save`` or safetensors.
        map_location: As in ``torch.load``. Defaults to None.

    Returns:
        dict: The checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is corrupt, or holds more than tensors and plain values.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint not found: {filename}')
    try:
        if path.suffix == '.safetensors':
            return _load_safetensors(path, map_location)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as e:
        if b'PK' == path.open('rb').read(2) or 'weights_only' in str(e).lower() or 'unsupported' in str(e).lower():
            raise CheckpointError(f'{filename} is refused: it holds more than tensors and plain values, or is damaged, '
                                  'and reading it could run code') from e
        raise CheckpointError(f'{filename} is not a readable checkpoint') from e
    except Exception as e:  # a truncated archive fails in many ways, none of which names the file
        raise CheckpointError(f'{filename} is not a readable checkpoint ({type(e).__name__}: truncated or not a '
                              'checkpoint at all)') from e
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get('state_dict'), dict):
        raise CheckpointError(f'{filename} is not a checkpoint of this project: it has no state_dict')
    return checkpoint


def pack(checkpoint: dict, model: nn.Module, cfg: Config) -> None:
    """Turn MMEngine's checkpoint into this project's, in place, just before it is written.

    The state dict keeps what trains; ``meta['vop_mm']`` gets the method, the data set and the CLIP that it belongs to.
    A checkpoint without optimiser state (``best_*``) keeps nothing else; one with it can be resumed from.

    Args:
        checkpoint (dict): As ``Runner.save_checkpoint`` hands it to its hooks, with the whole model's state dict; of a
            sharded model, it is empty in all processes but the main one.
        model (TextVideoRetriever): The model that it is of.
        cfg (Config): The experiment's config.
    """
    state = checkpoint['state_dict']
    checkpoint['state_dict'] = OrderedDict((name, state[name].detach().cpu().clone())
                                           for name in _shapes(model) if name in state)
    meta = checkpoint['meta']
    dataset = (meta.get('dataset_meta') or {}).get('dataset')
    checkpoint['meta'] = _plain({**meta, _META_KEY: describe(model, cfg, dataset)})
    if 'optimizer' in checkpoint:
        hub = checkpoint['message_hub']
        hub['log_scalars'] = {
            key: dict(values=[float(v) for v in buffer.data[0]], counts=[int(c) for c in buffer.data[1]],
                      max_length=buffer.max_length)
            for key, buffer in hub['log_scalars'].items()}
        checkpoint['message_hub'] = _plain(hub)
    else:
        checkpoint.pop('message_hub', None)


def describe(model: nn.Module, cfg: Config, dataset: str | None = None) -> dict:
    """What a checkpoint belongs to.

    Args:
        model (TextVideoRetriever): The model.
        cfg (Config): Its config, with ``method`` where it names one.
        dataset (str, optional): What it was trained on.

    Returns:
        dict: ``version, method, dataset, clip: {arch, fingerprint}``.
    """
    return dict(version=__version__, method=cfg.get('method'), dataset=dataset,
                clip=dict(arch=model.clip.arch_name, fingerprint=model.clip.fingerprint))


def unpack(checkpoint: dict) -> None:
    """Undo :func:`pack` for MMEngine's resuming, in place.

    Args:
        checkpoint (dict): As read.
    """
    hub = checkpoint.get('message_hub')
    if hub:
        hub['log_scalars'] = OrderedDict(
            (key, HistoryBuffer(item['values'], item['counts'], item['max_length']))
            for key, item in hub['log_scalars'].items())


def match(checkpoint: dict, model: nn.Module) -> None:
    """Refuse a checkpoint that isn't this model's.

    Args:
        checkpoint (dict): As read.
        model (TextVideoRetriever): The model that is to take its tensors.

    Raises:
        CheckpointError: Another CLIP, another method, or tensors of other shapes.
    """
    made_on = (checkpoint.get('meta') or {}).get(_META_KEY, {})
    clip = made_on.get('clip')
    if clip and clip['arch'] != model.clip.arch_name:
        raise CheckpointError(f'the checkpoint was made on CLIP {clip["arch"]}, this model has {model.clip.arch_name}')
    found, wanted = checkpoint['state_dict'], _shapes(model)
    missing, extra = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
    if missing or extra:
        detail = f'it lacks {missing[0]}' if missing else f'it holds {extra[0]}'
        raise CheckpointError(f'the checkpoint (method {made_on.get("method")}) doesn\'t fit this model: {detail}'
                              + (f' and {len(missing) + len(extra) - 1} more' if len(missing) + len(extra) > 1 else ''))
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise CheckpointError(f'the checkpoint (method {made_on.get("method")}) doesn\'t fit this model: {name} is '
                                  f'{tuple(found[name].shape)}, wanted {tuple(shape)}')
    if clip and clip['fingerprint'] != model.clip.fingerprint:
        raise CheckpointError(f'the checkpoint was made on other CLIP weights: fingerprint {clip["fingerprint"]}, this '
                              f'model\'s CLIP ({model.clip.arch_name}, weights {model.clip.weights}) has '
                              f'{model.clip.fingerprint}')


def keep_identity(model: nn.Module) -> None:
    """Note what a checkpoint of this model holds and belongs to, before it is sharded.

    A shard has neither the name nor the shape; :func:`pack` and :func:`match` go by what is noted.

    Args:
        model (TextVideoRetriever): Not yet wrapped.
    """
    model.whole_shapes = _shapes(model)
    model.clip.fingerprint  # noqa: B018 - taken now


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    if hasattr(model, 'whole_shapes'):
        return model.whole_shapes
    return {name: value.shape for name, value in trainable_state_dict(model).items()}


def load_trainable(model: nn.Module, filename: str) -> dict:
    """Read a checkpoint into a model, after checking that it belongs there.

    Args:
        model (TextVideoRetriever): Built, with its CLIP weights.
        filename (str): The checkpoint.

    Returns:
        dict: The checkpoint as read.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It can't be read, or is not this model's.
    """
    checkpoint = load_from_local_safely(filename, map_location='cpu')
    match(checkpoint, model)
    model.load_state_dict(checkpoint['state_dict'])
    return checkpoint


def serialise(checkpoint: dict, suffix: str = '.pth') -> bytes:
    """A checkpoint to share, as the content of a file: tensors and what they belong to, nothing of the run.

    The same tensors and metadata give the same bytes.

    Args:
        checkpoint (dict): As read.
        suffix (str): ``'.pth'`` or ``'.safetensors'``. Defaults to ``'.pth'``.

    Returns:
        bytes: What :func:`load_from_local_safely` reads.
    """
    import io
    import json

    meta = checkpoint.get('meta') or {}
    meta = {key: meta[key] for key in (_META_KEY, 'dataset_meta', 'epoch', 'cfg') if key in meta}
    state = {name: tensor.contiguous() for name, tensor in checkpoint['state_dict'].items()}
    if suffix == '.safetensors':
        from safetensors.torch import save
        return save(state, metadata=dict(meta=json.dumps(meta)))
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=OrderedDict(state)), buffer)
    return buffer.getvalue()


def _load_safetensors(path: Path, map_location) -> dict:
    import json

    from safetensors import safe_open
    device = str(map_location) if map_location is not None and not callable(map_location) else 'cpu'
    with safe_open(path, framework='pt', device=device) as file:
        meta = json.loads((file.metadata() or {}).get('meta', '{}'))
        return dict(meta=meta, state_dict={name: file.get_tensor(name) for name in file.keys()})


def _plain(value):
    """The same with plain Python values in place of numpy's and of dict subclasses; objects become their text."""
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value) if type(value) in (list, tuple) else [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.Tensor)):
        return value
    return str(value)
