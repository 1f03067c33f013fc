"""Check of open_clip model configs, which may come from somebody else: with weights, a checkpoint or an index."""
import copy
import difflib
import inspect
from dataclasses import fields

# Of the position embedding of open_clip's own ViT, which is computed on the CPU if it is fixed: the largest of a
# published CLIP has 1.2 million.
_MAX_POSITIONS = 2**25


def checked_config(cfg: dict, name: str) -> dict:
    """Check an open_clip model config before a model is built from it.

    Building must not download anything, and must not read a folder that the config names: towers are those of timm by
    its own names, and those of Hugging Face that a registered architecture uses.

    Args:
        cfg (dict): Model config: ``dict(embed_dim, vision_cfg, text_cfg, ...)``.
        name (str): Name of the architecture for error messages.

    Returns:
        dict: A copy of it, in which no tower is pretrained.

    Raises:
        ValueError: A key is missing or unknown, or a tower is not one of those above; the message has one line.
    """
    from open_clip.coca_model import MultimodalCfg
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    known = inspect.signature(CustomTextCLIP).parameters
    _check_keys(cfg, name, '', {*known, 'custom_text', 'multimodal_cfg'})
    missing = [key for key, parameter in known.items() if parameter.default is parameter.empty and key not in cfg]
    if missing:
        raise ValueError(f'architecture {name!r} can\'t be built: it has no {missing[0]}')
    for key, kind in dict(vision_cfg=CLIPVisionCfg, text_cfg=CLIPTextCfg, multimodal_cfg=MultimodalCfg).items():
        _check_keys(cfg.get(key, {}), name, f'{key}.', {field.name for field in fields(kind)})
    cfg = copy.deepcopy(dict(cfg))
    _check_vision(cfg['vision_cfg'], name)
    _check_text(cfg['text_cfg'], name)
    return cfg


def _check_keys(cfg, name: str, place: str, known: set[str]) -> None:
    if not isinstance(cfg, dict):
        raise ValueError(f'architecture {name!r} can\'t be built: {place.rstrip(".") or "it"} is not a dict')
    for key in cfg:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ValueError(f'architecture {name!r} can\'t be built: unknown key {f"{place}{key}"!r:.80}'
                             f'{f"; did you mean {near[0]}?" if near else ""}')


def _check_vision(cfg: dict, name: str) -> None:
    import timm

    tower = cfg.get('timm_model_name')
    if tower:
        # timm takes 'hf-hub:...' and 'local-dir:...' as well, and its own names with a tag of their configs
        if not isinstance(tower, str) or not timm.is_model(tower) or (
                '.' in tower and tower not in timm.list_pretrained()):
            raise ValueError(f'architecture {name!r} can\'t be built: timm has no model {tower!r:.80}')
        cfg['timm_model_pretrained'] = False
    elif cfg.get('pos_embed_type', 'learnable') != 'learnable':
        size, patch = cfg.get('image_size', 224), cfg.get('patch_size', 16)
        sizes = [*(size if isinstance(size, (list, tuple)) else [size]), patch, cfg.get('width', 768)]
        if not all(type(item) is int and item > 0 for item in sizes) or (
                (max(sizes[:-2]) // patch) ** 2 * sizes[-1] > _MAX_POSITIONS):
            raise ValueError(f'architecture {name!r} can\'t be built: its position embedding is too large')


def _check_text(cfg: dict, name: str) -> None:
    import open_clip

    tower = cfg.get('hf_model_name')
    if tower:
        known = {open_clip.get_model_config(arch)['text_cfg'].get('hf_model_name') for arch in open_clip.list_models()}
        if not isinstance(tower, str) or tower not in known:
            raise ValueError(f'architecture {name!r} can\'t be built: {tower!r:.80} is no text tower of Hugging Face '
                             f'that open_clip has: {", ".join(sorted(known - {None}))}')
        cfg['hf_model_pretrained'] = False
