"""The small models are of the kinds that open_clip builds, all of them, and of no other."""
import re

import open_clip
import pytest
import timm
import torch

from tests.backbone_kinds import BLOCKS, KINDS, WHOLE, captions_of, end_of, frames_of, plain_model
from tests.versions import needs

pytestmark = needs('open_clip_torch', '3.3', 'not all kinds of towers')
_NUMBERS = {'image_size', 'layers', 'width', 'head_width', 'patch_size', 'mlp_ratio', 'ls_init_value', 'context_length',
            'vocab_size', 'heads', 'attn_pooler_heads', 'attn_pooler_queries', 'eos_id', 'timm_model_name',
            'hf_tokenizer_name', 'tokenizer_kwargs', 'tokenizer_mode'}


def real_configs():
    """Configs of open_clip but those with a text tower of Hugging Face, by name."""
    found = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    return {name: cfg for name, cfg in found.items() if 'hf_model_name' not in cfg['text_cfg']}


def options(cfg):
    """Every option that is no number or name, as (part of the config, key, value)."""
    own = {('', k, repr(v)) for k, v in cfg.items() if k not in ('embed_dim', 'multimodal_cfg') and k[-4:] != '_cfg'}
    return own | {(tower, k, repr(v)) for tower in ('vision_cfg', 'text_cfg') for k, v in cfg[tower].items()
                  if k not in _NUMBERS}


def test_every_option_of_open_clip_is_in_a_kind():
    seen = set().union(*map(options, KINDS.values()))
    assert not {(name, option) for name, cfg in real_configs().items() for option in options(cfg) - seen}


def signature(cfg, **kwargs):
    """What blocks, norms, positions and read-out a trunk of timm has, built as open_clip does."""
    vision = cfg['vision_cfg']
    pool, proj = vision['timm_pool'], vision['timm_proj']
    with torch.device('meta'):
        if proj == 'linear':
            trunk = timm.create_model(vision['timm_model_name'], **kwargs)
            trunk.reset_classifier(0, **(dict(global_pool=pool) if pool else {}))
        else:
            trunk = timm.create_model(vision['timm_model_name'], num_classes=0 if proj else 8, global_pool=pool,
                                      **kwargs)
    block, rope = trunk.blocks[0], getattr(trunk, 'rope', None)
    names = {re.sub(r'blocks\.\d+', 'blocks', name) for name in trunk.state_dict() if '.backbone.' not in name}
    modules = {type(module).__name__ for module in trunk.modules()} - {'Dropout', 'DropPath', 'Sequential'}
    return (names, modules, trunk.global_pool, trunk.num_prefix_tokens, block.norm1.eps,
            rope and (rope.grid_indexing, rope.grid_offset, rope.temperature, rope.in_pixels, block.attn.rotate_half))


def test_every_trunk_of_timm_with_blocks_is_a_kind():
    of_timm = {name: cfg for name, cfg in real_configs().items() if 'timm_model_name' in cfg['vision_cfg']}
    small = [signature(cfg) for cfg in BLOCKS.values() if 'timm_model_name' in cfg['vision_cfg']]
    unlike, known = [], set()
    for name, cfg in of_timm.items():
        model = cfg['vision_cfg']['timm_model_name']
        if model in known or model.startswith(('convnext', 'fastvit', 'swin', 'vit_relpos')):
            continue
        known.add(model)
        if signature(cfg, depth=1) not in small:
            unlike.append(name)
    assert len(known) > 30
    assert not unlike


@pytest.mark.parametrize('kind', WHOLE)
@torch.no_grad()
def test_whole_towers_embed_frames_of_their_size(kind):
    model = plain_model(WHOLE[kind], dtype=torch.float64)
    features = model.encode_image(frames_of(WHOLE[kind], 1, 2, dtype=torch.float64)[0], normalize=True)
    assert features.shape == (2, 40) and (features[0] - features[1]).abs().max() > 1e-3


@pytest.mark.parametrize('kind', KINDS)
def test_no_weight_is_a_plain_0_or_1(kind):
    model = plain_model(KINDS[kind])
    for name, value in model.state_dict().items():
        if value.is_floating_point() and name not in ('logit_scale', 'logit_bias'):
            assert not ((value == 0) | (value == 1)).any(), name


@pytest.mark.parametrize('kind', KINDS)
def test_captions_have_one_end(kind):
    tokens, end = captions_of(KINDS[kind], [3, 9]), end_of(KINDS[kind])
    for row, length in zip(tokens.tolist(), (3, 9)):
        assert row.index(end) == length - 1
