"""The numbers of the published code, on small random weights in the published layout."""
import pytest
import torch
from safetensors.torch import load_file

from tests.clips import DATA
from vop_mm.models.backbones.clip_weights import read_clip_weights
from vop_mm.models.backbones.openai_arch import openai_arch
from vop_mm.registry import MODELS


@pytest.fixture(scope='module', params=[('modelscope_prefix8', 8, 0), ('modelscope_prefix4_suffix4', 4, 4)],
                ids=lambda p: p[0])
def published(request):
    """A retriever with the published prompts, and what the published classes compute."""
    name, prefix, suffix = request.param
    weights = str(DATA / name / 'ViT-B-32.pt')
    backbone = dict(type='OpenCLIP', arch=openai_arch(read_clip_weights(weights).state_dict), weights=weights)
    model = MODELS.build(dict(
        type='TextVideoRetriever', backbone=backbone, published_eot=True, num_frames=12,
        frame_prompts=[dict(type='GenericPrompt', num_tokens=8)],
        text_prompts=[dict(type='GenericPrompt', num_tokens=prefix)],
        text_suffix_prompts=[dict(type='GenericPrompt', num_tokens=suffix)] if suffix else [])).eval()
    state = torch.load(DATA / name / 'VoP_msrvtt9k.pth', weights_only=True)['state_dict']
    text = state['text_prompt_learner.text_prompts']
    model.load_state_dict({
        'vision_tower.prompts.0.weight': state['visual_prompt_learner.visual_prompts'][:, 0],
        'text_tower.prompts.0.weight': text[:, :prefix],
        **({'text_tower.suffix_prompts.0.weight': text[:, prefix:]} if suffix else {})})
    return model, load_file(DATA / name / 'in_out.safetensors')


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@torch.no_grad()
def test_embeddings_and_logits(published):
    model, data = published
    close(model.encode_frames(data['videos']), data['frame_features'])
    videos, texts = model.encode_video(data['videos']), model.encode_text(data['tokens'])
    close(videos, torch.nn.functional.normalize(data['video_features'], dim=-1))
    close(texts, data['text_features'])
    close(model.backbone.logit_scale.exp() * texts @ videos.T, data['logits'])


def test_loss_and_gradients(published):
    model, data = published
    model.zero_grad()
    loss = model(data['videos'], data['tokens'], mode='loss')['loss']
    close(loss, data['loss'].view(()))
    loss.backward()
    text = torch.cat([p.weight.grad for p in [*model.text_tower.prompts, *model.text_tower.suffix_prompts]], dim=1)
    for mine, name in ((model.vision_tower.prompts[0].weight.grad, 'grad_visual_prompts'), (text, 'grad_text_prompts')):
        other = data[name].view_as(mine)
        assert (mine - other).norm() <= 1e-4 * other.norm(), name


def test_the_compatible_reading_matters_only_with_a_suffix(published):
    model, data = published
    model.text_tower.published_eot = False
    changed = (model.encode_text(data['tokens']) - data['text_features']).abs().max()
    model.text_tower.published_eot = True
    assert changed > 1e-3 if len(model.text_tower.suffix_prompts) else changed < 1e-5


@torch.no_grad()
def test_clip_without_prompts(published):
    prompted, data = published
    plain = MODELS.build(dict(type='TextVideoRetriever', tuning=dict(type='ZeroShot'), backbone=dict(
        type='OpenCLIP', arch=prompted.backbone.arch, weights=prompted.backbone.weights))).eval()
    close(plain.encode_frames(data['videos']), data['plain_frame_features'])
    close(plain.encode_text(data['tokens77']), data['plain_text_features'])
    assert plain.backbone.fingerprint == prompted.backbone.fingerprint
