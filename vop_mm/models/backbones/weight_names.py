"""Names and shapes of open_clip's published weights, as the model to be loaded has them."""
import re
from collections.abc import Mapping

from torch import Tensor, nn

# A buffer that text towers of Hugging Face stored until 2023.
_POSITION_IDS = 'text.transformer.embeddings.position_ids'
# Tensors by which open_clip tells Apple's files of MobileCLIP, and all names that those contain. Other names would lead
# timm's conversion of the ViT into branches for other models, which resize tensors to whatever the file asks for.
_APPLE = ('image_encoder.model.patch_embed.0.rbr_conv.0.conv.weight',
          'image_encoder.model.patch_emb.0.block.conv.weight')
_OF_APPLE = re.compile(
    r'logit_scale|text_encoder\..+|image_encoder\.model\.(patch_embed\.\d+|network|conv_exp|head)\..+|'
    r'image_encoder\.model\.(patch_emb\.\d+\.block|pos_embed|transformer|post_transformer_norm|classifier)\..+|'
    r'image_encoder\.model\.cls_token')


def fit_names(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights under the names, and in the shapes, of a model of open_clip.

    As ``open_clip.factory.load_checkpoint`` does it, but that no position embedding is resized, and that a model
    without a decoder takes a CoCa's weights.

    Args:
        model (nn.Module): ``CLIP`` or ``CustomTextCLIP``; it is not changed.
        state (Mapping[str, Tensor]): Weights from :func:`~vop_mm.models.backbones.clip_weights.read_clip_weights`.

    Returns:
        dict[str, Tensor]: A state dict for the model, if the weights are of its architecture.

    Raises:
        ValueError: An Apple file of MobileCLIP can't be converted.
    """
    state = _from_apple(model, state) if any(name in state for name in _APPLE) else dict(state)
    if not hasattr(model, 'text'):
        state = {name.removeprefix('text.'): value for name, value in state.items()}
    elif 'token_embedding.weight' in state:
        state = {name if name.startswith(('visual.', 'logit_')) else f'text.{name}': value
                 for name, value in state.items()}
    own = model.state_dict()
    # computed by the model; older versions of the libraries stored such buffers
    unused = {_POSITION_IDS, *(name for name, _ in model.named_buffers())} - own.keys()
    if not hasattr(model, 'text_decoder'):
        unused |= {name for name in state if name.startswith('text_decoder.')}
    state = {name: value for name, value in state.items() if name not in unused}
    if 'logit_bias' in own:
        state.setdefault('logit_bias', own['logit_bias'].new_zeros(()))
    for name in ('logit_scale', 'logit_bias'):  # numbers, or vectors of one
        if name in state and name in own and state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    return state


def _from_apple(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from open_clip.convert import convert_state_dict

    unknown = next((name for name in state if not _OF_APPLE.fullmatch(name)), None)
    if unknown is not None:
        raise ValueError(f'it is a MobileCLIP of Apple\'s with the unknown tensor {unknown!r:.100}')
    try:
        converted = convert_state_dict(model, dict(state))
    except Exception as e:  # written for files and models of one kind, it fails in any way with others
        raise ValueError('it is a MobileCLIP of Apple, and can\'t be converted for this architecture '
                         f'({type(e).__name__})') from e
    positions = state.get('image_encoder.model.pos_embed.pos_embed.pos_embed')
    if positions is not None:  # timm would have resized it
        converted['visual.trunk.pos_embed'] = positions.squeeze(0)
    return converted
