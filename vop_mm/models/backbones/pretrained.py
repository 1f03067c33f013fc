"""Weights of open_clip: what is recorded of a tag, and how files are downloaded and loaded."""
from pathlib import Path

from torch import nn

from .clip_weights import read_clip_weights


def tag_record(arch: str, weights: str | None) -> dict:
    """Return what open_clip records of a tag of weights; empty for a file, an unknown tag, or no weights."""
    if weights is None or _is_path(weights):
        return {}
    from open_clip.pretrained import get_pretrained_cfg
    return get_pretrained_cfg(arch, weights)


def load_weights(model: nn.Module, name: str, weights: str, cache_dir: str | None) -> str:
    """Load weights from a file or by tag into ``model`` and return the path of the file."""
    path, quick_gelu = (weights, False) if _is_path(weights) else _download(name, weights, cache_dir)
    state, from_openai = read_clip_weights(path)
    if (from_openai or quick_gelu) and not any('QuickGELU' in type(m).__name__ for m in model.modules()):
        raise ValueError(f'the weights {weights} were trained with quick-GELU, as all of OpenAI\'s; name a quick-GELU '
                         f'architecture, e.g. {name}-quickgelu')
    for key in state.keys() & {'logit_scale', 'logit_bias'}:  # a scalar in some files, [1] in others
        own = getattr(model, key, None)
        if own is not None and state[key].numel() == 1:
            state[key] = state[key].reshape(own.shape)
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        lines = [line.strip() for line in str(e).splitlines()[1:] if line.strip()]
        shown = '; '.join(line if len(line) < 160 else line[:157] + '...' for line in lines[:2])
        raise ValueError(f'weights {weights} don\'t fit the CLIP architecture {name}: {shown}') from e
    return path


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
    try:
        path = download_pretrained(cfg, cache_dir=cache_dir)
    except Exception as e:  # hub clients raise their own errors, which differ between versions
        raise ConnectionError(
            f'the weights {tag!r} of {arch} can\'t be downloaded ({type(e).__name__}). Without a connection, fetch the '
            'file elsewhere (OpenAI archive, state dict or safetensors) and point at it: '
            '--cfg-options model.backbone.weights=/path/to/file') from e
    return path, tag.lower() == 'openai' or bool(cfg.get('quick_gelu'))
