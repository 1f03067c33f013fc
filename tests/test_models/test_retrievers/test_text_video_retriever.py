"""The three modes of the retriever, against its parts put together by hand."""
import math

import pytest
import torch
from torch.nn import functional as F

from tests.clips import build_retriever, generic, random_frames, random_tokens
from tests.versions import needs
from vop_mm.structures import VideoTextDataSample

PARTS = dict(frame_prompts=[generic(4)], text_prompts=[generic(4)], num_frames=2)


def batch():
    """Three videos with two, one and three captions."""
    return dict(frames=random_frames(3, 2), tokens=random_tokens([5, 9, 30, 4, 12, 77]),
                text_video=torch.tensor([0, 0, 1, 2, 2, 2]), video_index=torch.tensor([8, 3, 5]))


def features(model, data):
    return model.encode_video(data['frames']), model.encode_text(data['tokens'])


def cross_entropies(logits):
    """Of the diagonal, both ways, by the definition."""
    rows, columns = (logits.exp() / logits.exp().sum(dim=d, keepdim=True) for d in (1, 0))
    return -(rows.diagonal().log().mean() + columns.diagonal().log().mean()) / 2


def test_tensor_is_the_embeddings():
    model, data = build_retriever(**PARTS), batch()
    videos, texts = features(model, data)
    out = model(**data, mode='tensor')
    assert set(out) == {'video_features', 'text_features'}
    assert torch.equal(out['video_features'], videos) and torch.equal(out['text_features'], texts)
    assert videos.shape == (3, 48) and texts.shape == (6, 48)


def test_loss_is_the_cross_entropy_both_ways():
    model = build_retriever(**PARTS, dtype=torch.float64)
    frames, tokens = random_frames(3, 2, dtype=torch.float64), random_tokens([5, 9, 30])
    videos, texts = model.encode_video(frames), model.encode_text(tokens)
    logits = model.backbone.logit_scale.exp() * texts @ videos.T
    assert abs(model.backbone.logit_scale.exp().item() - 1 / 0.07) < 1e-4
    loss = model(frames, tokens, mode='loss')['loss']
    torch.testing.assert_close(loss, cross_entropies(logits), rtol=0, atol=1e-12)


@pytest.mark.parametrize('same_video', ['mask', 'soft', 'negative'])
def test_loss_of_several_captions_has_a_row_for_each_pair(same_video):
    model = build_retriever(**PARTS, loss=dict(type='SymmetricContrastiveLoss', same_video=same_video),
                            dtype=torch.float64)
    data = dict(batch(), frames=random_frames(3, 2, dtype=torch.float64))
    videos, texts = features(model, data)
    rows = videos[[0, 0, 1, 2, 2, 2]]
    logits = model.backbone.logit_scale.exp() * texts @ rows.T
    expected = model.loss_module(logits, torch.tensor([8, 8, 3, 5, 5, 5]))
    assert torch.isclose(model(**data, mode='loss')['loss'], expected, rtol=1e-12)
    if same_video == 'negative':
        assert torch.isclose(expected, cross_entropies(logits), rtol=1e-12)


def test_two_items_of_one_video_are_known_by_its_index():
    model, data = build_retriever(**PARTS, dtype=torch.float64), batch()
    frames, tokens = random_frames(3, 2, dtype=torch.float64), data['tokens'][:3]
    plain = model(frames, tokens, mode='loss')['loss']
    same = model(frames, tokens, video_index=torch.tensor([4, 9, 4]), mode='loss')['loss']
    logits = model.backbone.logit_scale.exp() * model.encode_text(tokens) @ model.encode_video(frames).T
    logits[0, 2] = logits[2, 0] = float('-inf')
    assert torch.isclose(same, cross_entropies(logits), rtol=1e-12) and not torch.isclose(same, plain)


@pytest.mark.parametrize(('value', 'used'), [(3., 3.), (math.log(100), math.log(100)), (7., math.log(100))])
def test_the_logit_scale_is_clamped_at_100(value, used):
    model = build_retriever(**PARTS, tuning=dict(type='PromptTuning', logit_scale=True), dtype=torch.float64)
    frames, tokens = random_frames(3, 2, dtype=torch.float64), random_tokens([5, 9, 30])
    with torch.no_grad():
        model.backbone.logit_scale.fill_(value)
    logits = math.exp(used) * model.encode_text(tokens) @ model.encode_video(frames).T
    loss = model(frames, tokens, mode='loss')['loss']
    loss.backward()
    torch.testing.assert_close(loss, cross_entropies(logits), rtol=1e-9, atol=1e-12)
    assert model.backbone.logit_scale.item() == used
    plain = torch.tensor(used, dtype=torch.float64, requires_grad=True)  # the gradient is alive at the bound
    cross_entropies(plain.exp() * logits.detach() / math.exp(used)).backward()
    torch.testing.assert_close(model.backbone.logit_scale.grad, plain.grad, rtol=1e-9, atol=0)


def test_a_frozen_logit_scale_is_clamped_and_left_as_it_is():
    model, frames, tokens = build_retriever(**PARTS), random_frames(3, 2), random_tokens([5, 9, 30])
    model.backbone.logit_scale.fill_(math.log(100))
    expected = model(frames, tokens, mode='loss')['loss']
    model.backbone.logit_scale.fill_(7.)
    assert model(frames, tokens, mode='loss')['loss'] == expected and model.backbone.logit_scale == 7


def test_predict_fills_the_samples():
    model, data = build_retriever(**PARTS), batch()
    videos, texts = features(model, data)
    samples = [VideoTextDataSample(metainfo=dict(video_id=str(i))) for i in range(3)]
    out = model(**data, data_samples=samples, mode='predict')
    assert all(a is b for a, b in zip(out, samples, strict=True))
    for sample, video, own in zip(samples, videos, (texts[:2], texts[2:3], texts[3:])):
        assert torch.equal(sample.video_feature, video) and torch.equal(sample.text_features, own)
    # a video without captions, and one caption each where nothing is said
    samples = model(**dict(data, text_video=torch.tensor([0, 0, 0, 2, 2, 2])), data_samples=samples, mode='predict')
    assert [len(s.text_features) for s in samples] == [3, 0, 3]
    data = dict(frames=data['frames'], tokens=data['tokens'][:3])
    samples = model(**data, data_samples=samples, mode='predict')
    torch.testing.assert_close(torch.cat([s.text_features for s in samples]), texts[:3], rtol=0, atol=1e-6)


def test_through_the_data_preprocessor():
    """As MMEngine's loops call it: raw samples in, samples with features out."""
    model, data = build_retriever(**PARTS), batch()
    pixels = [torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8) for _ in range(3)]
    samples = []
    for index, rows in zip((8, 3, 5), ([0, 1], [2], [3, 4, 5])):
        sample = VideoTextDataSample(metainfo=dict(video_index=index, num_frames=2))
        sample.tokens = data['tokens'][rows]
        samples.append(sample)
    out = model.test_step(dict(inputs=pixels, data_samples=samples))
    frames = model.data_preprocessor.normalize(torch.stack(pixels))
    torch.testing.assert_close(torch.stack([s.video_feature for s in out]), model.encode_video(frames))
    torch.testing.assert_close(torch.cat([s.text_features for s in out]), model.encode_text(data['tokens']),
                               rtol=0, atol=1e-6)


def test_masked_frames_are_left_out_in_every_mode():
    model, data = build_retriever(**PARTS), batch()
    mask = torch.tensor([[True, False], [True, True], [True, False]])
    masked = model(**data, frame_mask=mask)['video_features']
    alone = torch.cat([model.encode_video(v[None, :n]) for v, n in zip(data['frames'], (1, 2, 1))])
    torch.testing.assert_close(masked, alone, rtol=0, atol=1e-6)
    assert model(**data, frame_mask=mask, mode='loss')['loss'] != model(**data, mode='loss')['loss']


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(
    torch.float16, marks=needs('torch', '2.5', 'no float16 on a CPU'))])
def test_under_autocast_embeddings_have_unit_norm_and_cosines_are_float32(dtype):
    model, data = build_retriever(**PARTS, rough=0.02), batch()
    with torch.autocast('cpu', dtype=dtype):
        out = model(**data)
        loss = model(**data, mode='loss')['loss']
        videos, texts = out['video_features'], out['text_features']
        similarity = model.head.similarity(texts, videos)
    for value in (videos, texts):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.norm(dim=-1), torch.ones(len(value)), rtol=0, atol=1e-6)
    torch.testing.assert_close(similarity, (texts.double() @ videos.double().T).float(), rtol=0, atol=1e-6)
    logits = model.backbone.logit_scale.exp() * texts.double() @ videos[[0, 0, 1, 2, 2, 2]].double().T
    expected = model.loss_module(logits, torch.tensor([8, 8, 3, 5, 5, 5]))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)


def test_prompt_configs_are_left_as_they_were():
    prompts = [generic(4)]
    build_retriever(frame_prompts=prompts)
    assert prompts == [generic(4)]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'tensor', 'predict' or 'loss', got 'train'"):
        build_retriever(**PARTS)(**batch(), mode='train')


def test_unit_norm_of_frames_texts_and_videos():
    model, data = build_retriever(**PARTS), batch()
    for value in (model.encode_frames(data['frames']), *features(model, data)):
        torch.testing.assert_close(value, F.normalize(value, dim=-1), rtol=0, atol=1e-6)
