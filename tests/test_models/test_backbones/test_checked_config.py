"""Model configs of somebody else: nothing is downloaded or read for what they name, and errors have one line."""
import copy
import time
import tracemalloc
from dataclasses import fields

import open_clip
import pytest
import timm
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from tests.clips import SMALL
from vop_mm.models.backbones.checked_config import checked_config


def changed(**changes):
    """A config with other values of its towers: ``vision_cfg__width=3``."""
    cfg = copy.deepcopy(SMALL)
    for key, value in changes.items():
        inside, _, name = key.rpartition('__')
        (cfg[inside] if inside else cfg)[name] = value
    return cfg


def test_every_architecture_of_open_clip_is_taken_and_downloads_nothing():
    for name in open_clip.list_models():
        cfg = open_clip.get_model_config(name)
        before, checked = copy.deepcopy(cfg), checked_config(cfg, name)
        assert cfg == before
        for tower, kind, key in (('vision_cfg', 'timm_model_name', 'timm_model_pretrained'),
                                 ('text_cfg', 'hf_model_name', 'hf_model_pretrained')):
            if kind in cfg[tower]:
                assert checked[tower].pop(key) is False
            assert checked[tower].items() <= before[tower].items()
        assert checked.keys() == before.keys()


def test_a_copy_is_returned():
    cfg = changed(vision_cfg__timm_model_name='test_vit', vision_cfg__timm_model_pretrained=True)
    assert checked_config(cfg, 'x')['vision_cfg']['timm_model_pretrained'] is False
    assert cfg['vision_cfg']['timm_model_pretrained'] is True
    assert checked_config(SMALL, 'x') == SMALL and CLIP(**checked_config(SMALL, 'x')).visual.image_size == (32, 32)


def test_text_towers_are_not_loaded_though_that_is_open_clips_default():
    assert {field.name: field.default for field in fields(CLIPTextCfg)}['hf_model_pretrained'] is True
    cfg = changed(text_cfg__hf_model_name='roberta-base')
    assert checked_config(cfg, 'x')['text_cfg']['hf_model_pretrained'] is False


def test_all_keys_of_open_clip_are_known():
    for tower, kind in dict(vision_cfg=CLIPVisionCfg, text_cfg=CLIPTextCfg).items():
        checked_config({**SMALL, tower: {field.name: field.default for field in fields(kind)}}, 'x')
    checked_config(changed(custom_text=True, multimodal_cfg=dict(width=8, dim_head=4), init_logit_bias=-10), 'x')


def test_names_of_timm_may_have_a_tag():
    tag = next(name for name in timm.list_pretrained('test_vit*'))
    assert '.' in tag
    assert checked_config(changed(vision_cfg__timm_model_name=tag), 'x')['vision_cfg']['timm_model_name'] == tag


@pytest.mark.parametrize(('cfg', 'says'), [
    *((changed(vision_cfg__timm_model_name=name), 'timm has no model ') for name in [
        'hf-hub:timm/vit_tiny', 'hf_hub:timm/vit_tiny', 'local-dir:/tmp/x', 'local-dir:test_vit', 'no_such_model',
        '/tmp/test_vit', 'timm/test_vit', '../test_vit', 'test_vit.no_such_tag', 'test_vit.a/../b', 'a\nb', 'x' * 9999,
        ['test_vit'], {'a': 1}, 7, True]),
    *((changed(text_cfg__hf_model_name=name), 'no text tower of Hugging Face that open_clip has: .*roberta-base') for
      name in ['somebody/evil', '/tmp/x', './x', 'roberta-base/../x', 'hf-hub:roberta-base', 'a\nb', ['roberta-base'],
               {'a': 1}, 7, 'x' * 9999]),
    (changed(vision_cfg__widht=3), "unknown key 'vision_cfg.widht'; did you mean width"),
    (changed(text_cfg__cast_dtype='x'), "unknown key 'text_cfg.cast_dtype'"),
    (changed(multimodal_cfg=dict(vision=1)), "unknown key 'multimodal_cfg.vision'"),
    (changed(pretrained='x'), "unknown key 'pretrained'"),
    ({**SMALL, 'a\nb': 1}, 'unknown key'), ({**SMALL, 'x' * 9999: 1}, 'unknown key'), ({**SMALL, 7: 1}, 'unknown key'),
    (changed(vision_cfg=[]), 'vision_cfg is not a dict'), (changed(text_cfg=None), 'text_cfg is not a dict'),
    (changed(multimodal_cfg='x'), 'multimodal_cfg is not a dict'), ([1], 'it is not a dict'),
    (dict(embed_dim=8), 'it has no vision_cfg'), ({}, 'it has no embed_dim')])
def test_what_is_refused(cfg, says):
    with pytest.raises(ValueError, match=f"^architecture 'x' can't be built: .*{says}") as error:
        checked_config(cfg, 'x')
    assert '\n' not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize('change', [
    dict(image_size=4096, patch_size=1, width=64), dict(image_size=[4096, 4096], patch_size=8, width=1_000_000),
    dict(image_size=4096, patch_size=0, width=64), dict(image_size='4096', patch_size=8), dict(width=10**9)])
def test_a_position_embedding_that_would_fill_the_memory(change):
    """It is computed by NumPy, even on the meta device."""
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(ValueError, match='its position embedding is too large'):
        checked_config({**SMALL, 'vision_cfg': dict(change, pos_embed_type='sin_cos_2d')}, 'x')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e7 and time.perf_counter() - start < 5
    checked_config(changed(vision_cfg__pos_embed_type='sin_cos_2d'), 'x')
