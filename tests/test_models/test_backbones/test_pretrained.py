"""Files of every kind of open_clip's weights, loaded bit for bit."""
import re

import open_clip
import pytest
import timm
import torch
from open_clip.coca_model import CoCa
from open_clip.factory import load_checkpoint
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from timm.models import register_model
from torch import nn

from tests.test_models.test_backbones.test_clip_weights import save_archive
from tests.versions import needs
from vop_mm.models.backbones.pretrained import load_weights

TEXT = dict(context_length=16, vocab_size=300, width=32, heads=2, layers=2)
VIT = dict(image_size=32, patch_size=16, width=32, head_width=16, layers=2)
COUNT = 2**24 + 1  # not a float32
OF_TAGS = open_clip.list_pretrained()


# -- small models of every kind ----------------------------------------------------------------------------------------
def small_timm(name, **changes):
    """The name of a model of timm, made small."""
    entry = timm.models.model_entrypoint(name)

    def small(pretrained=False, **kwargs):
        return entry(pretrained=False, **{**changes, **kwargs})

    small.__name__, small.__module__ = f'small_{name}', __name__
    if not timm.is_model(small.__name__):
        register_model(small)
    return small.__name__


@register_model
def small_mci(pretrained=False, **kwargs):
    """MobileCLIP-B's tower."""
    from timm.models.vision_transformer_hybrid import ConvStem, _create_vision_transformer_hybrid
    stem = ConvStem(channels=(8, 8, 32), stride=(4, 2, 2), kernel_size=(4, 2, 2), padding=0, act_layer=nn.GELU)
    return _create_vision_transformer_hybrid('vit_base_mci_224', backbone=stem, embed_args=dict(proj=False), **dict(
        dict(embed_dim=32, depth=2, num_heads=2, no_embed_class=True), **kwargs))


def on_timm(name, pool='', proj='linear', kind=CLIP, text=TEXT, **kwargs):
    vision = dict(timm_model_name=name, timm_model_pretrained=False, timm_pool=pool, timm_proj=proj, image_size=32)
    return kind(16, vision, dict(text), **kwargs)


def transformer():
    return CLIP(16, VIT, TEXT)


def custom_text():
    return CustomTextCLIP(16, VIT, TEXT)


def clipa():
    return CustomTextCLIP(16, dict(VIT, no_ln_pre=True, pool_type='avg', final_ln_after_pool=True),
                          dict(TEXT, no_causal_mask=True, pool_type='last'))


def siglip():
    text = dict(TEXT, no_causal_mask=True, proj_bias=True, pool_type='last', norm_kwargs=dict(eps=1e-6))
    return on_timm('test_vit3', 'map', 'none', CustomTextCLIP, text, init_logit_scale=2.3, init_logit_bias=-10)


def resnet(quick_gelu=False):
    return CLIP(16, dict(image_size=32, layers=[1, 2, 1, 1], width=8), TEXT, quick_gelu)


def convnext():
    return on_timm(small_timm('convnext_base', depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)), proj='mlp')


def vitamin():
    return on_timm(small_timm('vitamin_small_224', depth=1), kind=CustomTextCLIP)


def eva():
    return on_timm(small_timm('eva02_base_patch16_clip_224', depth=2, embed_dim=32, num_heads=2, img_size=32), 'token',
                   None, CustomTextCLIP)


def eva_post_norm():
    return on_timm(small_timm('eva02_enormous_patch14_clip_224', depth=1, embed_dim=32, num_heads=2, img_size=28),
                   'token', None, CustomTextCLIP)


def perception_encoder():
    return on_timm(small_timm('vit_pe_core_tiny_patch16_384', depth=1, embed_dim=32, num_heads=2, img_size=32), 'map',
                   'linear', CustomTextCLIP)


def swin():
    return on_timm(small_timm('swin_base_patch4_window7_224', depths=(1, 1), embed_dim=16, num_heads=(1, 1),
                              img_size=56))


def fastvit():
    return on_timm(small_timm('fastvit_mci0', layers=(1, 1, 2, 1), embed_dims=(16, 16, 32, 32)), 'avg', None,
                   CustomTextCLIP)


def hybrid():
    return on_timm('small_mci', 'token', None, CustomTextCLIP)


def coca(kind=CoCa):
    cfg = dict(vision_cfg=dict(VIT, attentional_pool=True, attn_pooler_heads=2, output_tokens=True),
               text_cfg=dict(TEXT, embed_cls=True, output_tokens=True))
    if kind is CoCa:
        cfg.update(multimodal_cfg=dict(TEXT, attn_pooler_heads=2))
    return kind(16, **cfg)


KINDS = [transformer, custom_text, clipa, siglip, resnet, convnext, vitamin, eva, eva_post_norm, perception_encoder,
         swin, fastvit, hybrid, coca]


@torch.no_grad()
def randomized(model, seed=1):
    """Every value of a model changed; counts are too large for float32."""
    torch.manual_seed(seed)
    for value in model.state_dict().values():
        value.copy_(torch.randn(value.shape) if value.is_floating_point() else torch.tensor(COUNT))
    return model


def load(model, state, folder, name='w.pt'):
    (save_file if name.endswith('.safetensors') else torch.save)(
        {key: value.contiguous() for key, value in state.items()}, folder / name)
    assert load_weights(model, 'custom', str(folder / name), None) == str(folder / name)
    return model


def assert_equal(model, state):
    found = model.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def as_open_clip(model, path):
    """What open_clip itself loads."""
    load_checkpoint(model, str(path))
    return model.state_dict()


# -- files -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['w.pt', 'w.safetensors'])
@pytest.mark.parametrize('kind', KINDS)
def test_each_kind_is_loaded_bit_for_bit(tmp_path, kind, name):
    state = randomized(kind()).state_dict()
    model = load(kind(), state, tmp_path, name)
    assert_equal(model, state)
    assert_equal(model, as_open_clip(kind(), tmp_path / name))


@pytest.mark.parametrize('kind', KINDS)
def test_buffers_that_a_model_computes_are_not_taken_from_a_file(tmp_path, kind):
    """Older versions of the libraries stored the mask of words, rotary tables, positions ..."""
    model = randomized(kind())
    computed = {name: torch.full_like(value, 3) for name, value in model.named_buffers()
                if name not in model.state_dict()}
    found = load(kind(), {**computed, **model.state_dict()}, tmp_path)
    assert_equal(found, model.state_dict())
    assert all(not value.eq(3).all() for name, value in found.named_buffers() if name in computed)


def test_the_text_tower_may_be_named_at_the_top_or_not(tmp_path):
    top, inside = randomized(transformer()).state_dict(), randomized(custom_text(), 2).state_dict()
    assert_equal(load(custom_text(), top, tmp_path), as_open_clip(custom_text(), tmp_path / 'w.pt'))
    found = load(transformer(), inside, tmp_path).state_dict()
    assert {f'text.{name}' if f'text.{name}' in inside else name for name in found} == inside.keys()
    assert all(torch.equal(value, inside.get(f'text.{name}', inside.get(name))) for name, value in found.items())


def test_a_coca_is_loaded_without_its_decoder(tmp_path):
    state = randomized(coca()).state_dict()
    model = load(coca(CustomTextCLIP), state, tmp_path)
    left = state.keys() - model.state_dict().keys()
    assert left and all(name.startswith('text_decoder.') for name in left)
    assert_equal(model, {name: value for name, value in state.items() if name not in left})


@pytest.mark.parametrize('shape', [(), (1, )])
@pytest.mark.parametrize('vector', [False, True])
def test_scale_and_bias_are_numbers_or_vectors_of_one(tmp_path, shape, vector):
    def build():
        return CLIP(16, VIT, TEXT, init_logit_bias=-10, nonscalar_logit_scale=vector)

    state = dict(randomized(build()).state_dict())
    state.update(logit_scale=torch.full(shape, 4.7), logit_bias=torch.full(shape, -12.5))
    model = load(build(), state, tmp_path)
    assert model.logit_scale.shape == model.logit_bias.shape == ((1, ) if vector else ())
    assert (model.logit_scale.item(), model.logit_bias.item()) == (torch.tensor(4.7).item(), -12.5)


def test_a_bias_that_a_file_lacks_is_zero(tmp_path):
    """As open_clip has it for weights that were trained with a softmax."""
    state = dict(randomized(siglip()).state_dict())
    del state['logit_bias']
    model = load(siglip(), state, tmp_path)
    assert model.logit_bias.item() == 0
    assert_equal(model, as_open_clip(siglip(), tmp_path / 'w.pt'))


@pytest.mark.filterwarnings('ignore')
def test_openais_archive_of_a_resnet(tmp_path):
    """Traced and in half precision, with the buffers of batch norms; its quick-GELU is that of the text tower."""
    model = randomized(resnet(True))
    state = {name: value.half().float() if value.is_floating_point() else value
             for name, value in model.state_dict().items()}
    save_archive({name: value.half() if value.is_floating_point() else value for name, value in state.items()},
                 tmp_path / 'RN.pt')
    found = resnet(True)
    load_weights(found, 'custom', str(tmp_path / 'RN.pt'), None)
    assert_equal(found, state)
    with pytest.raises(ValueError, match='quick-GELU'):
        load_weights(resnet(), 'RN50', str(tmp_path / 'RN.pt'), None)


def test_activations_of_timm_are_not_those_of_the_text(tmp_path):
    """Files of OpenAI's kind are for text towers with quick-GELU, whatever the vision tower has."""
    name = small_timm('vit_base_patch16_clip_quickgelu_224', depth=1, embed_dim=32, num_heads=2, img_size=32)
    state = dict(randomized(on_timm(name)).state_dict(), input_resolution=torch.tensor(32))
    with pytest.raises(ValueError, match='quick-GELU'):
        load(on_timm(name), state, tmp_path)
    load(on_timm(name, quick_gelu=True), state, tmp_path)


@pytest.mark.parametrize('config', ['XLMRobertaConfig', 'M2M100Config', 'MT5Config'])
def test_text_towers_of_hugging_face(tmp_path, config):
    """Of the kinds of RoBERTa, NLLB and mT5, and with the positions that older versions stored."""
    transformers = pytest.importorskip('transformers')
    getattr(transformers, config)(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, d_model=32,
        encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=40,
        decoder_ffn_dim=40, d_kv=16, d_ff=40, num_layers=2, num_heads=2).save_pretrained(tmp_path / 'hf')

    def build():
        return CustomTextCLIP(16, VIT, dict(hf_model_name=str(tmp_path / 'hf'), hf_model_pretrained=False,
                                            hf_proj_type='mlp', hf_pooler_type='mean_pooler'))

    state = randomized(build()).state_dict()
    older = {'text.transformer.embeddings.position_ids': torch.arange(9)[None]} if 'Roberta' in config else {}
    model = load(build(), {**state, **older}, tmp_path)
    assert_equal(model, state)
    assert_equal(model, as_open_clip(build(), tmp_path / 'w.pt'))


# -- Apple's files -----------------------------------------------------------------------------------------------------
OF_TEXT = [('positional_embedding', 'positional_embedding.pos_embed.pos_embed'),
           ('text_projection', 'projection_layer'), ('token_embedding', 'embedding_layer'),
           ('ln_final', 'final_layer_norm'), ('transformer.resblocks', 'transformer'), ('ln_1', 'pre_norm_mha.0'),
           ('attn.', 'pre_norm_mha.1.'), ('ln_2', 'pre_norm_ffn.0'), ('mlp.c_fc', 'pre_norm_ffn.1'),
           ('mlp.c_proj', 'pre_norm_ffn.4'), ('in_proj_', 'qkv_proj.')]
OF_HYBRID = [(r'patch_embed\.backbone\.(\d)\.conv', r'patch_emb.\1.block.conv'),
             (r'patch_embed\.backbone\.(\d)\.bn', r'patch_emb.\1.block.norm'), (r'^norm\.', 'post_transformer_norm.'),
             (r'^blocks', 'transformer'), ('norm1', 'pre_norm_mha.0'), ('norm2', 'pre_norm_ffn.0'),
             (r'attn\.qkv', 'pre_norm_mha.1.qkv_proj'), (r'attn\.proj', 'pre_norm_mha.1.out_proj'),
             (r'mlp\.fc1', 'pre_norm_ffn.1'), (r'mlp\.fc2', 'pre_norm_ffn.4'),
             ('^pos_embed$', 'pos_embed.pos_embed.pos_embed'), (r'^head\.weight', 'classifier.proj')]
OF_FASTVIT = [('^stem', 'patch_embed'), ('conv_kxk', 'rbr_conv'), ('conv_scale', 'rbr_scale'), ('identity', 'rbr_skip'),
              ('final_conv', 'conv_exp'), ('large_conv', 'lkb_origin'), (r'\.mlp\.', '.convffn.'),
              (r'se\.fc1', 'se.reduce'), (r'se\.fc2', 'se.expand'), (r'(layer_scale\w*)\.gamma', r'\1'),
              (r'^head\.fc\.weight', 'head.proj')]
# the stages of a FastViT in Apple's flat list, in which each is followed by a step down; the last has positions
PLACES = [('stages.3.pos_emb.pos_enc', 'network.6.pe'), *((f'stages.{i}.blocks', f'network.{n}')
                                                          for i, n in enumerate((0, 2, 4, 7))),
          *((f'stages.{i}.downsample.proj', f'network.{2 * i - 1}.proj') for i in (1, 2, 3))]


def apples(state, names):
    """A state dict of open_clip's as Apple published it."""
    out = dict(logit_scale=state['logit_scale'])
    for name, value in state.items():
        tower, _, inside = name.removeprefix('visual.').partition('.')
        if tower == 'text':
            for ours, theirs in OF_TEXT:
                inside = inside.replace(ours, theirs)
            out[f'text_encoder.{inside}'] = value[None, None] if 'pos_embed' in inside else value
        elif tower == 'trunk' and not re.search(r'^head(\.fc)?\.bias', inside):
            for ours, theirs in PLACES:
                inside = inside.replace(ours, theirs)
            for ours, theirs in names:
                inside = re.sub(ours, theirs, inside)
            out[f'image_encoder.model.{inside}'] = (
                value[None] if 'pos_embed.pos' in inside else value.T if inside in ('head.proj', 'classifier.proj')
                else value)
    return out


@pytest.mark.parametrize(('kind', 'names'), [(fastvit, OF_FASTVIT), (hybrid, OF_HYBRID)])
def test_mobile_clips_of_apple(tmp_path, kind, names):
    state = dict(randomized(kind()).state_dict())
    bias = next(name for name in state if re.search(r'trunk\.head(\.fc)?\.bias', name))
    state[bias] = torch.zeros_like(state[bias])  # Apple's have none
    theirs = apples(state, names)
    assert len(theirs) == len(state) - 1 and not theirs.keys() & state.keys() - {'logit_scale'}
    model = load(kind(), theirs, tmp_path)
    assert_equal(model, state)
    assert_equal(model, as_open_clip(kind(), tmp_path / 'w.pt'))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('change', 'says'), [
    (lambda state: state.update({'image_encoder.model.mask_token': torch.ones(1)}),
     "the unknown tensor 'image_encoder.model.mask_token'"),
    (lambda state: state.update({'image_encoder.model.patch_embed.proj.weight': torch.ones(1, 1, 512, 512)}),
     'the unknown tensor'),
    (lambda state: state.pop('logit_scale'), r"can't be converted for this architecture \(KeyError\)"),
    (lambda state: state.update({'image_encoder.model.pos_embed.pos_embed.pos_embed': torch.ones(1, 1, 16, 32)}),
     r'size mismatch for visual.trunk.pos_embed: .*\[1, 16, 32\]'),
    (lambda state: state.update({'image_encoder.model.pos_embed.pos_embed.pos_embed': torch.ones(3)}), "don't fit"),
    (lambda state: state.update({'image_encoder.model.classifier.proj': torch.ones(3)}), "don't fit")])
def test_what_is_almost_of_apple_is_refused_in_one_line(tmp_path, change, says):
    state = apples(randomized(hybrid()).state_dict(), OF_HYBRID)
    change(state)
    with pytest.raises(ValueError, match=f"w.pt don't fit the CLIP architecture custom: .*{says}|{says}") as error:
        load(hybrid(), state, tmp_path)
    assert '\n' not in str(error.value)


def test_a_mobile_clip_of_apple_fits_no_other_architecture(tmp_path):
    for kind in (transformer, siglip, resnet):
        with pytest.raises(ValueError, match="don't fit the CLIP architecture custom: ") as error:
            load(kind(), apples(randomized(hybrid()).state_dict(), OF_HYBRID), tmp_path)
        assert '\n' not in str(error.value)


# -- files that don't fit ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(('change', 'says'), [
    (dict(VIT, image_size=48), 'size mismatch for visual.positional_embedding'),
    (dict(TEXT, context_length=20), 'size mismatch for positional_embedding')])
def test_position_embeddings_are_not_resized(tmp_path, change, says):
    """open_clip does so; the architecture of each of its tags has the size of its weights."""
    state = randomized(transformer()).state_dict()
    other = CLIP(16, change if 'patch_size' in change else VIT, change if 'vocab_size' in change else TEXT)
    with pytest.raises(ValueError, match=says):
        load(other, state, tmp_path)


def test_weights_of_numpy_are_refused_and_no_tag_has_them(tmp_path):
    records = [open_clip.get_pretrained_cfg(*pair) for pair in OF_TAGS]
    assert not any(str(value).endswith(('.npz', '.npy')) for record in records for value in record.values())
    (tmp_path / 'w.npz').write_bytes(b'PK')
    with pytest.raises(ValueError, match='w.npz: NumPy weights of big_vision are not read; .*state dict'):
        load_weights(siglip(), 'custom', str(tmp_path / 'w.npz'), None)


@needs('open_clip_torch', '2.30', 'fewer tags know of quick-GELU')
def test_the_architecture_that_quick_gelu_weights_ask_for_exists():
    tags = [(arch, tag) for arch, tag in OF_TAGS if open_clip.get_pretrained_cfg(arch, tag).get('quick_gelu')]
    assert len(tags) > 40
    for arch, tag in tags:
        own = open_clip.get_model_config(arch)
        name = arch if own.get('quick_gelu') else f'{arch}-quickgelu'
        assert open_clip.get_model_config(name)['quick_gelu'] and open_clip.get_pretrained_cfg(name, tag), (arch, tag)
