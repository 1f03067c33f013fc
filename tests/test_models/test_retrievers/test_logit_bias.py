"""Backbones with a logit bias (SigLIP's): the retriever's loss against open_clip's, the scale, the weights."""
import math

import pytest
import torch
from open_clip.loss import SigLipLoss

from tests.clips import SMALL, build_clip, build_retriever, generic, random_frames, random_tokens

SIGLIP = dict(SMALL, init_logit_scale=math.log(117.), init_logit_bias=-16.5)
PARTS = dict(frame_prompts=[generic(4)], text_prompts=[generic(4)], num_frames=2)
LOSS = dict(type='SigmoidLoss', same_video='negative')
SHAPES = pytest.mark.parametrize('nonscalar', [False, True])


def batch(dtype=torch.float64):
    return random_frames(4, 2, dtype=dtype), random_tokens([5, 9, 30, 4])


def test_a_backbone_says_whether_it_has_a_bias_and_how_large_its_scale_may_be():
    clip = build_clip()
    assert clip.logit_bias is None and clip.max_logit_scale == math.log(100)
    siglip = build_clip(SIGLIP, rough=0)
    assert siglip.logit_bias is siglip.model.logit_bias and siglip.logit_bias.item() == -16.5
    assert siglip.max_logit_scale is None


@SHAPES
def test_loss_and_gradients_are_open_clips(nonscalar):
    model = build_retriever(dict(SIGLIP, nonscalar_logit_scale=nonscalar), **PARTS, loss=LOSS, dtype=torch.float64,
                            tuning=dict(type='PromptTuning', logit_scale=True))
    frames, tokens = batch()
    backbone, parameters = model.backbone, [p for p in model.parameters() if p.requires_grad]
    assert len(parameters) == 4 and backbone.logit_bias.shape == ((1, ) if nonscalar else ())
    loss = model(frames, tokens, mode='loss')['loss']
    expected = SigLipLoss()(model.encode_video(frames), model.encode_text(tokens), backbone.logit_scale.exp(),
                            backbone.logit_bias)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for a, b in zip(*(torch.autograd.grad(x, parameters) for x in (loss, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert backbone.logit_scale.exp().item() == pytest.approx(117)  # above 100, and left there


@SHAPES
def test_a_frozen_scale_above_100_is_used_as_it_is(nonscalar):
    model = build_retriever(dict(SIGLIP, nonscalar_logit_scale=nonscalar), **PARTS, loss=LOSS, dtype=torch.float64)
    frames, tokens = batch()
    expected = SigLipLoss()(model.encode_video(frames), model.encode_text(tokens), 117., model.backbone.logit_bias)
    torch.testing.assert_close(model(frames, tokens, mode='loss')['loss'], expected, rtol=1e-6, atol=0)
    assert not model.backbone.logit_bias.requires_grad


def test_clips_scale_of_shape_1_is_clamped():
    model = build_retriever(dict(SMALL, nonscalar_logit_scale=True), **PARTS, dtype=torch.float64,
                            tuning=dict(type='PromptTuning', logit_scale=True))
    model.backbone.logit_scale.data.fill_(7.)
    loss = model(*batch(), mode='loss')['loss']
    assert loss.shape == () and model.backbone.logit_scale.item() == math.log(100)


def test_cross_entropy_does_not_depend_on_the_bias():
    model, data = build_retriever(SIGLIP, **PARTS, dtype=torch.float64), batch()
    loss = model(*data, mode='loss')['loss']
    model.backbone.logit_bias.zero_()
    torch.testing.assert_close(model(*data, mode='loss')['loss'], loss, rtol=1e-12, atol=1e-12)


def test_a_second_bias_is_refused():
    with pytest.raises(ValueError, match='has a logit bias of its own: leave out model.loss.bias'):
        build_retriever(SIGLIP, loss=dict(type='SigmoidLoss', bias=-10.))


@SHAPES
def test_weights_load_whatever_the_shape_of_scale_and_bias_in_the_file(tmp_path, nonscalar):
    wrote = build_clip(dict(SIGLIP, nonscalar_logit_scale=nonscalar))
    torch.save(wrote.model.state_dict(), tmp_path / 'siglip.pt')
    read = build_clip(dict(SIGLIP, nonscalar_logit_scale=not nonscalar), weights=str(tmp_path / 'siglip.pt'))
    for name in ('logit_scale', 'logit_bias'):
        a, b = getattr(read, name), getattr(wrote, name)
        assert a.shape != b.shape and a.item() == b.item()
    with pytest.raises(ValueError, match='Unexpected key.*logit_bias'):
        build_clip(weights=str(tmp_path / 'siglip.pt'))
