"""Weights of open_clip: what is recorded of a tag or beside a file, and how files are downloaded and loaded."""
import math
from pathlib import Path

from torch import nn

from vop_mm.utils.architecture_file import read_preprocessing
from vop_mm.utils.hub import hub_file

from .base import OPENAI_MEAN, OPENAI_STD
from .clip_weights import read_clip_weights
from .weight_names import fit_names

# arguments of Preprocessing: open_clip's names and defaults, which are OpenAI's
_OPENAI = dict(mean=('mean', OPENAI_MEAN), std=('std', OPENAI_STD), interpolation=('interpolation', 'bicubic'),
               resize=('resize_mode', 'shortest'))
_CHOICES = dict(interpolation=('bicubic', 'bilinear'), resize_mode=('shortest', 'squash'))


def tag_record(arch: str, weights: str | None) -> dict:
    """Return what open_clip records of a tag of weights; empty for a file, an unknown tag, or no weights."""
    if weights is None or _is_path(weights):
        return {}
    from open_clip.pretrained import get_pretrained_cfg
    return get_pretrained_cfg(arch, weights)


def recorded_preprocessing(arch: str, weights: str | None) -> dict:
    """Return the preprocessing that weights were trained with.

    That of a tag is recorded by open_clip, that of a file by ``open_clip_config.json`` in its folder. Otherwise, each
    value is assumed to be that of all tags of the architecture if they agree, and OpenAI's if not.

    Args:
        arch (str): Name of the architecture.
        weights (str, optional): Tag or file.

    Returns:
        dict: ``mean``, ``std``, ``interpolation``, ``resize`` and ``assumed`` of
        :class:`~vop_mm.models.backbones.base.Preprocessing`.

    Raises:
        ValueError: The file beside the weights has values of other kinds.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    recorded = tag_record(arch, weights)
    beside = None if recorded or weights is None else read_preprocessing(weights)
    if beside is not None:
        recorded = _checked(*beside)
    assumed = not recorded and beside is None
    records = ([get_pretrained_cfg(arch, tag) for tag in list_pretrained_tags_by_model(arch)] if assumed
               else [recorded])
    found = dict(assumed=assumed)
    for name, (key, default) in _OPENAI.items():
        values = {_plain(record.get(key, default)) for record in records}
        found[name] = values.pop() if len(values) == 1 else default
    return found


def load_weights(model: nn.Module, name: str, weights: str, cache_dir: str | None) -> str:
    """Load weights into a model of open_clip.

    Args:
        model (nn.Module): ``CLIP`` or ``CustomTextCLIP``.
        name (str): Name of its architecture.
        weights (str): A file, or a tag of the architecture, whose file is downloaded once.
        cache_dir (str, optional): Folder for downloaded weights; None for open_clip's default.

    Returns:
        str: The file.

    Raises:
        ValueError: Unknown tag, unreadable file, or weights that don't fit the model.
        FileNotFoundError: The file does not exist.
        ConnectionError: The weights of a tag can't be downloaded.
    """
    path, quick_gelu = (weights, False) if _is_path(weights) else _download(name, weights, cache_dir)
    state, from_openai = read_clip_weights(path)
    if (from_openai or quick_gelu) and not _has_quick_gelu(model):
        raise ValueError(f'the weights {weights} were trained with quick-GELU, as all of OpenAI\'s; name a quick-GELU '
                         f'architecture, e.g. {name}-quickgelu')
    for key in state.keys() & {'logit_scale', 'logit_bias'}:  # a scalar in some files, [1] in others
        own = getattr(model, key, None)
        if own is not None and state[key].numel() == 1:
            state[key] = state[key].reshape(own.shape)
    try:
        model.load_state_dict(fit_names(model, state))
    except (RuntimeError, ValueError) as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip() and 'Error(s) in loading' not in line]
        shown = '; '.join(line if len(line) < 160 else line[:157] + '...' for line in lines[:2])
        raise ValueError(f'weights {weights} don\'t fit the CLIP architecture {name}: {shown}') from e
    return path


def _has_quick_gelu(model: nn.Module) -> bool:
    # open_clip's own: towers of timm, ResNets and text towers of Hugging Face have other activations in any case
    from open_clip.transformer import QuickGELU
    return any(isinstance(module, QuickGELU) for module in model.modules())


def _checked(path: Path, values: dict) -> dict:
    """Check the values of a ``preprocess_cfg`` that came with weights."""
    for key, value in values.items():
        if key in ('mean', 'std') and not (
                isinstance(value, list) and len(value) == 3
                and all(type(item) in (int, float) and math.isfinite(item) and abs(item) < 1e3 for item in value)
                and (key == 'mean' or min(value) > 0)):
            raise ValueError(f'{path}: preprocess_cfg.{key} is {value!r:.80}, not three numbers')
        if key in _CHOICES and value not in _CHOICES[key]:
            raise ValueError(f'{path}: preprocess_cfg.{key} is {value!r:.80}, not one of {", ".join(_CHOICES[key])}')
    return values


def _plain(value):
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _is_path(weights: str) -> bool:
    return '/' in weights or Path(weights).suffix in ('.pt', '.pth', '.bin', '.safetensors') or Path(weights).is_file()


def _download(arch: str, tag: str, cache_dir: str | None) -> tuple[str, bool]:
    # returns the file and whether its weights use quick-GELU
    import open_clip
    from open_clip.pretrained import download_pretrained

    cfg = tag_record(arch, tag)
    if not cfg:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ValueError(f'open_clip has no weights {tag!r} for {arch}; it has: {", ".join(tags) or "none"}')
    what, setting = f'the weights {tag!r} of {arch}', '--cfg-options model.backbone.weights'
    repository, _, name = cfg.get('hf_hub', '').rpartition('/')
    if repository:
        name = name or 'open_clip_pytorch_model.bin'
        safe = 'open_clip_model.safetensors' if name == 'open_clip_pytorch_model.bin' else f'{name[:-4]}.safetensors'
        path = hub_file(repository, [safe, name], what, setting, cache_dir)
    else:
        try:
            path = download_pretrained(cfg, cache_dir=cache_dir)
        except Exception as e:  # a dozen kinds
            raise ConnectionError(f'{what} can\'t be downloaded ({type(e).__name__}). Without a connection, fetch '
                                  f'{cfg.get("url") or "the file"} elsewhere and point at it: {setting}=/path/to/file'
                                  ) from e
    return path, tag.lower() == 'openai' or bool(cfg.get('quick_gelu'))
