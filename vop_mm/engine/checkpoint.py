"""Checkpoints: their content, how they are read safely, and how they are matched to a model.

A checkpoint holds only tensors and plain Python values, so that ``torch.load(weights_only=True)`` reads it on every
version of torch; objects of MMEngine (the history of its logs) are converted to plain values and back.
"""
import hashlib
import io
import json
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch import nn

from vop_mm.models.tuning import trainable_state_dict
from vop_mm.utils.paths import open_regular
from vop_mm.utils.shared_config import check_plain
from vop_mm.utils.tensor_files import (
    TensorFileError,
    check_tensors,
    read_archive,
    read_safetensors,
    write_safetensors,
)
from vop_mm.version import __version__

_META_KEY = 'vop_mm'
# The hash that publish_model.py appends to the stem, also in uppercase and in the name of a copy: "a-1a2b3c4d (1).pth".
# Eight digits that form a date are a date, and those that begin with three zeros are a step number.
_HASH = re.compile(r'-(?!(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])$|000\d{5}$)([0-9a-f]{8})(?: ?\(\d+\))?$',
                   re.IGNORECASE)


class CheckpointError(ValueError):
    """Error for a checkpoint that can't be read, is not safe to read, or belongs to another model."""


def load_from_local_safely(filename: str | Path, map_location=None) -> dict:
    """Read a checkpoint without executing any of its content.

    Args:
        filename (str | Path): File written by ``torch.save``, or a safetensors file.
        map_location: As in ``torch.load``. Defaults to None.

    Returns:
        dict: The checkpoint: ``state_dict``, ``meta`` and, if it can be resumed from, the training state. All tensors
        are finite.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file is corrupt, doesn't match the hash in its name, or holds more than finite tensors and
            plain values.
    """
    path = Path(os.path.expanduser(filename))  # Path.expanduser fails on ~x.pth
    if not path.exists():
        raise FileNotFoundError(f'checkpoint not found: {filename}')
    try:
        file = open_regular(path)
    except OSError as e:
        raise CheckpointError(f'{filename} is not a readable checkpoint ({e.strerror})') from None
    with file:
        return read_checkpoint(file, str(filename), map_location)


def read_checkpoint(file: BinaryIO, name: str, map_location=None) -> dict:
    """Read an open checkpoint; see :func:`load_from_local_safely`.

    Args:
        file (BinaryIO): A real file.
        name (str): File name for messages; its suffix determines the format, and the name of a published file contains
            its hash.
        map_location: As in ``torch.load``. Defaults to None.

    Returns:
        dict: The checkpoint.

    Raises:
        CheckpointError: As in :func:`load_from_local_safely`.
    """
    try:
        if name.endswith('.safetensors'):
            device = str(map_location) if map_location is not None and not callable(map_location) else 'cpu'
            state, metadata = read_safetensors(file, device)
            checkpoint = dict(meta=json.loads(metadata.get('meta', '{}')), state_dict=state)
        else:
            checkpoint = read_archive(file, map_location)
        check_tensors(checkpoint, os.fstat(file.fileno()).st_size)
    except TensorFileError as e:
        raise CheckpointError(f'{name} is refused: {e}') from None
    except pickle.UnpicklingError as e:
        if b'PK' == os.pread(file.fileno(), 2, 0) or re.search('weights_only|unsupported', str(e), re.IGNORECASE):
            raise CheckpointError(f'{name} is refused: it holds more than tensors and plain values, or is damaged, '
                                  'and reading it could run code') from e
        raise CheckpointError(f'{name} is not a readable checkpoint') from e
    except Exception as e:  # a truncated archive fails in many ways, none of which names the file
        raise CheckpointError(f'{name} is not a readable checkpoint ({type(e).__name__}: truncated or not a '
                              'checkpoint at all)') from e
    if problem := _problem(checkpoint):
        raise CheckpointError(f'{name} is not a checkpoint of this project: {problem}')
    _check_hash(file, name)
    return checkpoint


def _problem(checkpoint) -> str | None:
    """Return how a checkpoint deviates from the expected format, or None."""
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        return 'it has no state_dict'
    for key in ('state_dict', 'not_averaged'):  # the second is written by TrainableEMAHook
        if key not in checkpoint:
            continue
        if not isinstance(checkpoint[key], dict):
            return f'its {key} is not a dict'
        checkpoint[key] = OrderedDict(checkpoint[key])  # without its attributes, which torch treats as options
        for name, value in checkpoint[key].items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                return f'its {key} holds {name!r:.80}, which is not a named tensor'
    meta = checkpoint['meta'] = checkpoint.get('meta') or {}
    try:
        check_plain(meta, 'meta', leaves=(torch.Tensor, ), max_nodes=100_000, max_string=1_000_000, bounded=False)
        made_on = (meta.get(_META_KEY) or {}) if isinstance(meta, dict) else None
        check_plain(made_on, f'meta.{_META_KEY}', max_nodes=100, max_string=200, bounded=False)  # shown to the user
    except ValueError as e:
        return str(e)
    clip = (made_on.get('clip') or {}) if isinstance(made_on, dict) else None
    if not isinstance(clip, dict) or clip and not (isinstance(clip.get('arch'), str)
                                                   and isinstance(clip.get('fingerprint'), str)):
        return 'its metadata is malformed'
    if not isinstance(meta.get('cfg', ''), str):
        return 'its config is not a string'
    return None


def _check_hash(file: BinaryIO, name: str) -> None:
    wanted = _HASH.search(Path(name).stem)
    if wanted is None:
        return
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    if not digest.hexdigest().startswith(wanted[1].lower()):
        raise CheckpointError(f'{name} is refused: its SHA-256 begins with {digest.hexdigest()[:8]}, its name '
                              f'says {wanted[1]}: it was damaged, changed or renamed')


def pack(checkpoint: dict, model: nn.Module, cfg: Config) -> None:
    """Convert MMEngine's checkpoint to this project's format, in place, just before it is written.

    The state dict keeps only the parameters that train; ``meta['vop_mm']`` stores the method, the dataset and the CLIP
    of the model. A checkpoint without optimizer state (``best_*``) keeps nothing else; one with it can be resumed from.

    Args:
        checkpoint (dict): Checkpoint that ``Runner.save_checkpoint`` passes to its hooks, with the state dict of the
            whole model; for a sharded model, it is empty in all processes but the main one.
        model (TextVideoRetriever): Model of the checkpoint.
        cfg (Config): Config of the experiment.
    """
    state = checkpoint['state_dict']
    checkpoint['state_dict'] = OrderedDict((name, state[name].detach().cpu().clone())
                                           for name in trainable_shapes(model) if name in state)
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
    """Describe the model and data of a checkpoint.

    Args:
        model (TextVideoRetriever): The model.
        cfg (Config): Its config, optionally with ``method``.
        dataset (str, optional): Dataset on which it was trained.

    Returns:
        dict: ``version, method, dataset, clip: {arch, fingerprint}``.
    """
    return dict(version=__version__, method=cfg.get('method'), dataset=dataset,
                clip=dict(arch=model.backbone.arch_name, fingerprint=model.backbone.fingerprint))


def unpack(checkpoint: dict) -> None:
    """Undo :func:`pack` in place, so that MMEngine can resume.

    Args:
        checkpoint (dict): Checkpoint as read from the file.
    """
    hub = checkpoint.get('message_hub')
    if hub:
        try:
            hub['log_scalars'] = OrderedDict(
                (key, HistoryBuffer(item['values'], item['counts'], item['max_length']))
                for key, item in hub['log_scalars'].items())
            hub['resumed_keys'] = dict.fromkeys([*hub['log_scalars'], *hub['runtime_info']], True)  # all that is saved
        except (TypeError, AttributeError, LookupError, ValueError, AssertionError, RuntimeError):
            raise CheckpointError('the history of values in the checkpoint is damaged') from None


def match(checkpoint: dict, model: nn.Module) -> None:
    """Check that a checkpoint belongs to a model; older checkpoints are converted.

    Args:
        checkpoint (dict): Checkpoint as read from the file.
        model (TextVideoRetriever): Model into which its tensors will be loaded.

    Raises:
        CheckpointError: Another CLIP, another method, or tensors of other shapes.
    """
    made_on = (checkpoint.get('meta') or {}).get(_META_KEY) or {}
    clip, method = made_on.get('clip'), made_on.get('method')
    if clip and clip['arch'] != model.backbone.arch_name:
        raise CheckpointError(f'the checkpoint was made on CLIP {clip["arch"]}, this model has '
                              f'{model.backbone.arch_name}')
    found, wanted = checkpoint['state_dict'], trainable_shapes(model)
    for name in [name for name in found if name.startswith('clip.')]:  # the older name of the backbone
        found['backbone.' + name.removeprefix('clip.')] = found.pop(name)
    # a VoP^F checkpoint older than prompt scopes has a single table for all layers
    names = [f'vision_tower.prompts.{i}.weight' for i in (0, 1)]
    rows = [wanted[name][0] for name in names if wanted.get(name)]
    if len(rows) == 2 and names[1] not in found and names[0] in found and found[names[0]].shape[:1] == (sum(rows), ):
        found.update(zip(names, found[names[0]].split(rows)))
    missing, extra = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
    if missing or extra:
        detail = f'it lacks {missing[0]}' if missing else f'it holds {_shown(extra[0])}'
        raise CheckpointError(f'the checkpoint (method {method}) doesn\'t fit this model: {detail}'
                              + (f' and {len(missing) + len(extra) - 1} more' if len(missing) + len(extra) > 1 else ''))
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise CheckpointError(f'the checkpoint (method {method}) doesn\'t fit this model: {name} is '
                                  f'{tuple(found[name].shape)}, wanted {tuple(shape)}')
    if clip and clip['fingerprint'] != model.backbone.fingerprint:
        raise CheckpointError(f'the checkpoint was made on other CLIP weights: fingerprint {clip["fingerprint"]}, this '
                              f'model\'s CLIP ({model.backbone.arch_name}, weights {model.backbone.weights}) has '
                              f'{model.backbone.fingerprint}')


@contextmanager
def naming(filename: str | Path | None) -> Iterator[None]:
    """Add the file name to a :class:`CheckpointError`.

    Args:
        filename (str | Path, optional): The checkpoint; None if unknown.
    """
    try:
        yield
    except CheckpointError as e:
        if filename is None or str(filename) in str(e):
            raise
        raise CheckpointError(f'{filename}: {e}') from None


def _shown(name: str) -> str:
    """Quote a name from a file for use in a message."""
    return name if name.isprintable() and len(name) <= 80 else f'{name!r:.80}'


def trainable_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of a model's trainable tensors: what a checkpoint of it holds.

    Args:
        model (TextVideoRetriever): The model. If its parameters were split over processes, its attribute
            ``whole_shapes`` holds the shapes from before.
    """
    if hasattr(model, 'whole_shapes'):
        return model.whole_shapes
    return {name: value.shape for name, value in trainable_state_dict(model).items()}


def load_trainable(model: nn.Module, filename: str) -> dict:
    """Load a checkpoint into a model after checking that it belongs to it.

    Args:
        model (TextVideoRetriever): Model with its CLIP weights.
        filename (str): The checkpoint.

    Returns:
        dict: Checkpoint as read from the file.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The checkpoint can't be read or belongs to another model.
    """
    checkpoint = load_from_local_safely(filename, map_location='cpu')
    with naming(filename):
        match(checkpoint, model)
    model.load_state_dict(checkpoint['state_dict'])
    return checkpoint


def serialize(checkpoint: dict, suffix: str = '.pth') -> bytes:
    """Serialize a checkpoint for sharing: tensors and metadata, without training state.

    The same tensors and metadata give the same bytes.

    Args:
        checkpoint (dict): Checkpoint as read from the file.
        suffix (str): ``'.pth'`` or ``'.safetensors'``. Defaults to ``'.pth'``.

    Returns:
        bytes: File content, readable by :func:`load_from_local_safely`.
    """
    meta = checkpoint.get('meta') or {}
    meta = {key: meta[key] for key in (_META_KEY, 'dataset_meta', 'epoch', 'cfg') if key in meta}
    if suffix == '.safetensors':
        return write_safetensors(checkpoint['state_dict'], dict(meta=json.dumps(meta)))
    buffer = io.BytesIO()
    state = OrderedDict((name, tensor.contiguous()) for name, tensor in checkpoint['state_dict'].items())
    torch.save(dict(meta=meta, state_dict=state), buffer)
    return buffer.getvalue()


def _plain(value):
    """Replace numpy values and dict subclasses by plain Python values, and other objects by their string."""
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value) if type(value) in (list, tuple) else [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    return str(value)
