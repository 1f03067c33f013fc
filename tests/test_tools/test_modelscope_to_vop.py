"""The published checkpoints are converted, and compute what the published code computes."""
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tools import run_tool
from vop_mm.apis import init_model
from vop_mm.config import read_config
from vop_mm.models.tuning import trainable_parameters

DATA = Path(__file__).resolve().parents[1] / 'data'
FOLDERS = ['modelscope_prefix8', 'modelscope_prefix4_suffix4']


def convert(source, target):
    return run_tool('tools/model_converters/modelscope_to_vop.py', source, target)


@pytest.fixture(scope='module', params=FOLDERS)
def converted(request, tmp_path_factory):
    """Config, checkpoint, and what the published code computed."""
    target = tmp_path_factory.mktemp('converted') / 'sub' / 'vop.pth'
    done = convert(DATA / request.param, target)
    assert done.returncode == 0, done.stderr
    return target.with_suffix('.py'), target, load_file(DATA / request.param / 'in_out.safetensors')


def close(a, b, tolerance=1e-5):
    return (a - b).abs().max() <= tolerance


def test_embeddings_logits_loss_and_gradients_are_the_published_ones(converted):
    config, checkpoint, expected = converted
    model = init_model(config, checkpoint)
    frames, tokens = expected['videos'], expected['tokens']
    frame_features, text_features = model.encode_frames(frames), model.encode_text(tokens)
    assert close(frame_features, expected['frame_features'])
    assert close(frame_features.mean(dim=1), expected['video_features'])  # the published mean is not normalized again
    assert close(text_features, expected['text_features'])
    logits = model.backbone.logit_scale.exp() * text_features @ model.encode_video(frames).T
    assert close(logits, expected['logits'])
    loss = model(frames, tokens, mode='loss')['loss']
    assert close(loss, expected['loss'])
    loss.backward()
    gradients = [p.grad for p in trainable_parameters(model).values()]
    for name, found in (('grad_visual_prompts', gradients[0]), ('grad_text_prompts', torch.cat(gradients[1:], dim=1))):
        wanted = expected[name].view_as(found)
        assert (found - wanted).norm() <= 1e-4 * wanted.norm()


def test_the_config_stands_alone_and_says_what_was_published(converted):
    config, checkpoint, _ = converted
    cfg = read_config(config)
    assert cfg.method == 'VoP' and cfg.model.num_frames == 12
    read, crop, *_ = cfg.test_dataloader.dataset.pipeline
    assert (read.num_frames, read.size, crop.crop_size) == (12, 32, 32)
    meta = torch.load(checkpoint, weights_only=True)['meta']['vop_mm']
    assert meta['method'] == 'VoP' and meta['dataset'] == 'msrvtt'


def test_towers_that_differ_from_the_clip_file_are_kept(tmp_path):
    """The published code runs the towers in the checkpoint: where they are not ViT-B-32.pt's, they are written out."""
    source = tmp_path / 'published'
    shutil.copytree(DATA / 'modelscope_prefix8', source)
    content = torch.load(source / 'VoP_msrvtt9k.pth', weights_only=True)
    content['state_dict']['image_encoder.proj'].mul_(2).add_(0.1)
    torch.save(content, source / 'VoP_msrvtt9k.pth')
    done = convert(source, tmp_path / 'vop.pth')
    assert done.returncode == 0 and 'differ' in done.stdout
    model = init_model(tmp_path / 'vop.py', tmp_path / 'vop.pth')
    assert torch.equal(model.backbone.model.visual.proj, content['state_dict']['image_encoder.proj'])


@pytest.mark.parametrize('name', ['VoP_msrvtt9k.pth', 'ViT-B-32.pt', 'configuration.json'])
@pytest.mark.parametrize('damage', ['missing', 'garbage', 'foreign'])
def test_a_folder_that_is_not_whole_gives_one_line_and_nothing(tmp_path, name, damage):
    source = tmp_path / 'published'
    shutil.copytree(DATA / 'modelscope_prefix8', source)
    if damage == 'missing':
        (source / name).unlink()
    elif damage == 'garbage':
        (source / name).write_bytes(b'garbage')
    elif name.endswith('.json'):
        (source / name).write_text(json.dumps({'hyperparam': {}}))
    else:
        torch.save({'x': torch.zeros(1)}, source / name)
    done = convert(source, tmp_path / 'out' / 'vop.pth')
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(lines) == 1 and 'Traceback' not in done.stderr, done.stderr
    assert name in lines[0], lines[0]
    assert not os.path.exists(tmp_path / 'out')
