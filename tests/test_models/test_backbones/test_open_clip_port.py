"""The towers without prompts are open_clip's, in value and gradient; what can't be run exactly is refused."""
import copy

import open_clip
import pytest
import torch
from torch.nn import functional as F

from tests.clips import SMALL, build_clip, random_frames, random_tokens
from vop_mm.models.backbones import TextTower, VisionTower

CUSTOM_TEXT = dict(SMALL, custom_text=True, text_cfg=dict(SMALL['text_cfg'], proj_bias=True))
ODD = dict(embed_dim=40, vision_cfg=dict(image_size=(32, 48), patch_size=8, width=64, head_width=16, layers=2,
                                         ls_init_value=0.3, no_ln_pre=True),
           text_cfg=dict(context_length=20, vocab_size=300, width=64, heads=4, layers=2, mlp_ratio=2.0))


def shortened(name, layers):
    cfg = open_clip.get_model_config(name)
    cfg['vision_cfg']['layers'] = cfg['text_cfg']['layers'] = layers
    return cfg


def unit(raw):
    return F.normalize(raw, dim=-1)


def towers(clip):
    depth = len(clip.vision_blocks)
    return (VisionTower(depth=depth, width=clip.vision_width, num_frames=2, video_from=depth),
            TextTower(context_length=clip.context_length))


@pytest.mark.parametrize(('arch', 'vocabulary'), [
    (SMALL, 300), (CUSTOM_TEXT, 300), (ODD, 300), ('ViT-B-32-quickgelu', 49408), (shortened('ViT-B-16', 3), 49408),
    (shortened('ViT-L-14', 2), 49408),
], ids=['small', 'custom_text', 'odd', 'ViT-B-32-quickgelu', 'ViT-B-16 of 3 layers', 'ViT-L-14 of 2 layers'])
def test_without_prompts_equals_stock_open_clip(arch, vocabulary):
    clip = build_clip(arch, rough=0 if vocabulary > 300 else 0.05)
    stock = clip.model  # open_clip's own model; the towers take its blocks one by one
    vision, text = towers(clip)
    height, width = clip.image_size
    frames = random_frames(1, 2, max(height, width))[..., :height, :width]
    tokens = random_tokens([5, 12, 20], clip.context_length, vocabulary - 2, vocabulary - 1)
    ours = unit(vision(clip, frames)[0]), unit(text(clip, tokens)[0])
    theirs = stock.encode_image(frames[0], normalize=True), stock.encode_text(tokens, normalize=True)
    direction = torch.randn(5, ours[0].shape[1], generator=torch.Generator().manual_seed(3))
    for mine, other in zip(ours, theirs):
        assert F.cosine_similarity(other[:1], other[1:]).max() < 0.999  # inputs differ: nothing trivial is compared
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)
    parameters = {name: p for name, p in stock.named_parameters() if p.grad is None and name != 'logit_scale'}
    gradients = [torch.autograd.grad((torch.cat(out) * direction).sum(), list(parameters.values()))
                 for out in (ours, theirs)]
    for name, mine, other in zip(parameters, *gradients):
        assert other.norm() > 0, name
        assert (mine - other).norm() <= 1e-5 * max(other.norm(), 1), name
        assert (mine - other).norm() <= 1e-3 * other.norm() or other.norm() < 1e-3, name


def test_equals_a_model_that_open_clip_itself_creates():
    clip = build_clip('ViT-S-32-alt')
    stock = open_clip.create_model('ViT-S-32-alt')
    stock.load_state_dict(clip.model.state_dict())
    frames, tokens = random_frames(1, 2, 224), open_clip.tokenize(['a squid is talking', 'people are singing'])
    vision, text = towers(clip)
    with torch.no_grad():
        torch.testing.assert_close(unit(vision(clip, frames)[0]), stock.eval().encode_image(frames[0], normalize=True),
                                   rtol=0, atol=1e-5)
        torch.testing.assert_close(unit(text(clip, tokens)[0]), stock.encode_text(tokens, normalize=True), rtol=0,
                                   atol=1e-5)


def test_eval_without_gradient_takes_no_other_values():
    clip = build_clip()
    (vision, text), frames, tokens = towers(clip), random_frames(2, 2), random_tokens([5, 77])
    with_grad = vision(clip, frames), text(clip, tokens)
    clip.eval()
    with torch.no_grad():
        torch.testing.assert_close((vision(clip, frames), text(clip, tokens)), with_grad, rtol=0, atol=1e-5)


def test_properties_of_vit_b_32():
    with torch.device('meta'):
        clip = build_clip('ViT-B-32-quickgelu')
    assert clip.image_size == (224, 224)
    assert (clip.vision_width, clip.text_width, clip.context_length) == (768, 512, 77)
    assert len(clip.vision_blocks) == len(clip.text_blocks) == 12
    assert sum(p.numel() for p in clip.parameters()) == 151_277_313
    assert sum(p.numel() for p in clip.projections) == 655_360


def changed(**changes):
    arch = copy.deepcopy(SMALL)
    for key, value in changes.items():
        tower, _, option = key.partition('__')
        arch[tower][option] = value
    return arch


@pytest.mark.parametrize(('arch', 'says'), [
    (changed(vision_cfg__pool_type='none'), 'without pooling'),
    (changed(text_cfg__pool_type='first'), "read by 'first'"),
    (changed(vision_cfg__widht=3), "can't be built: .*widht"),
    (dict(embed_dim=8), "can't be built: .*vision_cfg"),
    (changed(vision_cfg__head_width=20), "can't be built"),
])
def test_architectures_that_give_no_embedding_or_can_t_be_built_are_refused(arch, says):
    with pytest.raises(ValueError, match=says):
        build_clip(arch)


def test_an_unknown_architecture_suggests_near_names():
    with pytest.raises(ValueError, match=r"no architecture 'ViT-B-32-quickglu'.*: .*ViT-B-32-quickgelu"):
        build_clip('ViT-B-32-quickglu')


def test_frames_of_another_size_are_refused():
    clip = build_clip()
    with pytest.raises(ValueError, match=r'takes frames of \(32, 32\) pixels .* got \(32, 48\)'):
        towers(clip)[0](clip, torch.zeros(1, 1, 3, 32, 48))


def test_the_arch_in_the_config_is_left_as_it_was():
    arch = copy.deepcopy(CUSTOM_TEXT)
    build_clip(arch)
    assert arch == CUSTOM_TEXT
