"""The properties of every method (VoP, section 3) on small models of all kinds of open_clip's towers."""
import copy
from functools import cache, partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests import methods
from tests.backbone_kinds import BLOCKS, KINDS, WHOLE, captions_of, frames_of, plain_model, roughen_statistics
from tests.clips import build_clip, generic
from tests.heads import FramesByText, WordsByFrames
from tests.methods import BASELINES, FRAMES, close
from tests.versions import needs
from vop_mm.models.tuning import trainable_parameters

pytestmark = needs('open_clip_torch', '3.3', 'not all kinds of towers')
DEPTH = 3
# vision towers whose frames are read from CLS alone, and text towers whose captions are read at the last position
READ_AT_CLS = {'CLIP', 'worldwide', 'custom-blocks', 'CoCa-base', 'MobileCLIP2-B', 'MobileCLIP2-L', 'EVA02', 'EVA01',
               'EVA02-E'}
READ_LAST = {'CLIPA', 'CoCa', 'CoCa-base', 'SigLIP', 'SigLIP-i18n', 'SigLIP2'}
_OF_COCA = {'visual.proj', 'text.text_projection'}
_OF_TIMM = {'visual.trunk.head.weight', 'visual.trunk.head.bias', 'text.text_projection'}
_LINEAR = {'visual.head.proj.weight', 'text_projection'}
_SIGLIP = {'text.text_projection.weight', 'text.text_projection.bias'}
PROJECTIONS = {
    **dict.fromkeys(('CLIP', 'worldwide', 'CLIPA', 'custom-blocks'), {'visual.proj', 'text_projection'}),
    'CoCa': _OF_COCA, 'CoCa-base': _OF_COCA, 'SigLIP': _SIGLIP, 'SigLIP-i18n': set(), 'SigLIP2': _SIGLIP,
    **dict.fromkeys(('ViTamin', 'ViTamin-XL'), {'visual.head.proj.weight', 'text.text_projection'}),
    **dict.fromkeys(('MobileCLIP2-B', 'MobileCLIP2-L', 'PE-Core', 'PE-Core-bigG', 'EVA02', 'EVA01', 'EVA02-E'),
                    _OF_TIMM),
    **dict.fromkeys(('gap', 'ConvNeXt', 'Swin', 'relpos'), _LINEAR),
    'ResNet': {'visual.attnpool.c_proj.weight', 'visual.attnpool.c_proj.bias', 'text_projection'},
    'ConvNeXt-mlp': {'visual.head.mlp.fc1.weight', 'visual.head.mlp.fc1.bias', 'visual.head.mlp.fc2.weight',
                     'text_projection'},
    'MobileCLIP-S': {'visual.trunk.head.fc.weight', 'visual.trunk.head.fc.bias', 'text.text_projection'},
}


@cache
def _backbone(kind):
    backbone = build_clip(KINDS[kind], rough=0.1)
    roughen_statistics(backbone, 0.1)
    return backbone


def build(kind, method='zero_shot', dtype=torch.float64, **changes):
    return methods.build(method, copy.deepcopy(_backbone(kind)), dtype, **changes)


def frames(kind, videos=1, dtype=torch.float64):
    return frames_of(KINDS[kind], videos, FRAMES, dtype=dtype)


def captions(kind):
    return captions_of(KINDS[kind], [9, 4, KINDS[kind]['text_cfg']['context_length']])


def biases(model):
    """Names of the biases of linear layers, convolutions, normalizations and attention."""
    found = set()
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)):
            own = ['bias']
        elif hasattr(module, 'in_proj_weight'):  # torch's attention, and open_clip's
            own = ['in_proj_bias']
        else:  # of the queries and values in timm's
            own = ['q_bias', 'v_bias']
        found |= {f'{name}.{key}' for key in own if isinstance(getattr(module, key, None), nn.Parameter)}
    return found


def trainable_names(kind, method, model):
    """What a method trains, found in another way than in the package."""
    names = {name for name, _ in model.named_parameters()}
    clip = {name for name in names if name.startswith('backbone.')}
    if method == 'bias':
        return {f'backbone.model.{name}' for name in biases(plain_model(KINDS[kind]))}  # built by open_clip itself
    if method == 'proj':
        return {f'backbone.model.{name}' for name in PROJECTIONS[kind]}
    if method == 'partial':
        return {name for name in clip if f'blocks.{DEPTH - 1}.' in name}  # blocks, resblocks
    if method.startswith('adapter'):
        return {name for name in clip if '.down.' in name or '.up.' in name}
    return dict(full=names, zero_shot=set()).get(method, names - clip)


# -- methods that are equal under conditions ---------------------------------------------------------------------------
@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_methods_that_are_vop_under_conditions(kind):
    make, pixels = partial(build, kind), frames(kind, 2)
    methods.assert_video_scope_from_the_last_layer_on_is_vop(make, pixels, DEPTH)
    methods.assert_equal_position_rows_are_vop_with_generic_before_specific(make, pixels)
    methods.assert_context_without_weights_is_vop_with_the_bias(make, pixels, DEPTH)


@pytest.mark.parametrize('name', ['adapter_attn', 'adapter_ffn'])
@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_a_new_adapter_is_the_identity(kind, name):
    methods.assert_a_new_adapter_is_the_identity(partial(build, kind), name, frames(kind), captions(kind))


# -- which frame depends on which --------------------------------------------------------------------------------------
@pytest.mark.parametrize(('kind', 'name'), [
    *((kind, name) for kind in BLOCKS for name in ('vop', 'vop_p', 'vop_c', 'vop_f')),
    *((kind, 'vop_c_update') for kind in BLOCKS if kind in READ_AT_CLS), *((kind, 'zero_shot') for kind in WHOLE)])
@torch.no_grad()
def test_a_changed_frame_changes_the_others_only_where_frames_mix(kind, name):
    methods.assert_a_changed_frame_changes_the_others_only_where_frames_mix(build(kind, name), name, frames(kind))


@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_only_layers_of_video_scope_mix(kind):
    methods.assert_only_layers_of_video_scope_mix(build(kind, 'vop_f'), frames(kind))


@pytest.mark.parametrize(('kind', 'name'), [
    *((kind, 'vop_f_p') for kind in BLOCKS), *((kind, 'zero_shot') for kind in WHOLE)])
@torch.no_grad()
def test_frames_permuted_with_what_belongs_to_them_permute_the_embeddings(kind, name):
    methods.assert_frames_permuted_with_what_belongs_to_them_permute_the_embeddings(build(kind, name), frames(kind))


# -- what trains -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(('kind', 'name'), [
    *((kind, name) for kind in BLOCKS for name in ('vop_f_c', *BASELINES)),
    *((kind, 'vop_c_update') for kind in BLOCKS if kind in READ_AT_CLS),
    *((kind, name) for kind in WHOLE for name in ('full', 'bias', 'proj', 'zero_shot'))])
def test_gradients_are_on_what_trains_and_the_rest_stays(kind, name):
    if (kind, name) == ('SigLIP-i18n', 'proj'):
        with pytest.raises(ValueError, match='^neither tower of custom has a projection that could train$'):
            build(kind, name)
        return
    model, inputs = build(kind, name, dtype=torch.float32), (frames(kind, 3, dtype=torch.float32), captions(kind))
    assert set(trainable_parameters(model)) == trainable_names(kind, name, model)
    if name == 'zero_shot':
        assert not model.train()(*inputs, mode='loss')['loss'].requires_grad
    else:
        methods.assert_gradients_are_on_what_trains_and_the_rest_stays(model, *inputs)


@pytest.mark.parametrize('kind', ['SigLIP', 'Swin', 'EVA01', 'MobileCLIP-S'])
def test_parameters_that_are_no_biases_in_spite_of_their_names(kind):
    model = _backbone(kind).model
    others = {name for name, _ in model.named_parameters()} - biases(model)
    assert {name.rpartition('.')[2] for name in others if 'bias' in name} == {
        'SigLIP': {'logit_bias'}, 'Swin': {'relative_position_bias_table'}}.get(kind, set())


@pytest.mark.parametrize('head', [FramesByText, WordsByFrames])
@pytest.mark.parametrize('kind', WHOLE)
def test_whole_towers_train_with_text_prompts_and_a_head(kind, head):
    model = build(kind, 'zero_shot', dtype=torch.float32, tuning=dict(type='PromptTuning'),
                  text_prompts=[generic(3)], head=dict(type=head.__name__))
    pixels, tokens = frames(kind, 3, dtype=torch.float32), captions(kind)
    of_head = {'head.query.weight', 'head.query.bias', 'head.key.weight', 'head.key.bias'}
    assert set(trainable_parameters(model)) == {'text_tower.prompts.0.weight',
                                                *(of_head if head is FramesByText else ())}
    plain = build(kind, dtype=torch.float32)
    assert torch.equal(model.encode_frames(pixels), plain.encode_frames(pixels))
    assert not close(model.encode_text(tokens), plain.encode_text(tokens), 1e-3)
    methods.assert_gradients_are_on_what_trains_and_the_rest_stays(model, pixels, tokens)
    assert model.similarity(tokens, pixels).shape == (3, 3)


# -- what a tower can't have -------------------------------------------------------------------------------------------
TOWERS = {'ResNet': 'ModifiedResNet', 'ConvNeXt': 'ConvNeXt', 'ConvNeXt-mlp': 'ConvNeXt', 'MobileCLIP-S': 'FastVit',
          'Swin': 'SwinTransformer', 'relpos': 'VisionTransformerRelPos'}


@pytest.mark.parametrize('kind', WHOLE)
@pytest.mark.parametrize(('what', 'changes'), [
    ('frame_prompts', dict(frame_prompts=[generic(2)])), ('video_prompts', dict(video_prompts=[generic(2)])),
    ('cls_updates', dict(cls_updates=[dict(type='ContextUpdate')])), ('video_from', dict(video_from=0)),
    ('PartialTuning', BASELINES['partial']), ('AdapterTuning', BASELINES['adapter_attn'])])
def test_whole_towers_refuse_what_needs_blocks(kind, what, changes):
    line = (f"^{what} can't be used: the vision tower of custom has no transformer blocks "
            rf'\({TOWERS[kind]} as a whole\)$')
    with pytest.raises(ValueError, match=line):
        build(kind, **changes)


@pytest.mark.parametrize('kind', [kind for kind in BLOCKS if kind not in READ_AT_CLS])
def test_cls_updates_need_frames_that_are_read_from_cls(kind):
    with pytest.raises(ValueError, match='^cls_updates need frames that are read from CLS tokens, which custom does '):
        build(kind, 'vop_c_update')


@pytest.mark.parametrize('kind', KINDS)
def test_prompts_behind_captions_need_captions_that_are_not_read_at_the_last_position(kind):
    if kind in READ_LAST:
        with pytest.raises(ValueError, match='^text_suffix_prompts stand before the last position, where captions of '
                                             'custom are read$'):
            build(kind, text_suffix_prompts=[generic(2)])
    else:
        model, tokens = build(kind, text_suffix_prompts=[generic(2)]), captions(kind)[:2]
        same = close(model.encode_text(tokens), build(kind).encode_text(tokens), 1e-6)
        assert same == model.backbone.causal_text  # end of text doesn't see what follows it


# -- padding and batches -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(('kind', 'name'), [
    *((kind, 'vop_f_c') for kind in BLOCKS), *((kind, 'full') for kind in WHOLE)])
@torch.no_grad()
def test_a_batch_is_as_one_by_one_and_padding_as_nothing(kind, name):
    model, pixels = build(kind, name), frames(kind, 3)
    methods.assert_a_batch_is_as_one_by_one(model, pixels, captions(kind))
    methods.assert_masked_frames_are_as_if_they_were_not_there(model, pixels)


@pytest.mark.parametrize('kind', KINDS)
@torch.no_grad()
def test_a_last_frame_that_is_repeated_counts_as_often(kind):
    model, pixels = build(kind, 'vop' if kind in BLOCKS else 'zero_shot'), frames(kind, 2)
    pixels[:, 2:] = pixels[:, 1:2]
    each = model.encode_frames(pixels[:, :2])
    assert close(model.encode_video(pixels), F.normalize(each[:, 0] + 4 * each[:, 1], dim=-1))
