"""Detection of the architecture of weights with OpenAI's names."""
from torch import Tensor


def openai_arch(state_dict: dict[str, Tensor]) -> str | dict:
    """Infer the architecture of weights with OpenAI's names from their shapes.

    Args:
        state_dict (dict[str, Tensor]): Weights of a ViT.

    Returns:
        str | dict: Name of the open_clip architecture, or a config in open_clip's format if no published architecture
        has these shapes. Quick-GELU and attention heads of 64 channels, as in all of OpenAI's models.

    Raises:
        ValueError: The weights are not those of a ViT with OpenAI's names.
    """
    import open_clip

    try:
        width, _, patch, _ = state_dict['visual.conv1.weight'].shape
        grid = round((len(state_dict['visual.positional_embedding']) - 1) ** 0.5)
        vocabulary, text_width = state_dict['token_embedding.weight'].shape
        cfg = dict(
            embed_dim=state_dict['text_projection'].shape[1],
            quick_gelu=True,
            vision_cfg=dict(image_size=grid * patch, layers=_depth(state_dict, 'visual.transformer.resblocks.'),
                            width=width, patch_size=patch),
            text_cfg=dict(context_length=len(state_dict['positional_embedding']), vocab_size=vocabulary,
                          width=text_width, heads=text_width // 64,
                          layers=_depth(state_dict, 'transformer.resblocks.')))
    except KeyError as e:
        raise ValueError(f'not the weights of an OpenAI ViT: there is no {e.args[0]}') from e
    for name in open_clip.list_models():
        if name.startswith('ViT') and name.endswith('-quickgelu') and open_clip.get_model_config(name) == cfg:
            return name
    return cfg


def _depth(state_dict: dict[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix):].split('.')[0] for name in state_dict if name.startswith(prefix)})
