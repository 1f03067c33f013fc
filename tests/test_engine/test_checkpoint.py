"""Checkpoints: what they hold, that they are read safely, and whom they are refused to."""
import copy
import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from safetensors.torch import save_file

from vop_mm.engine.checkpoint import (
    CheckpointError,
    describe,
    load_from_local_safely,
    load_trainable,
    match,
    pack,
    unpack,
)
from vop_mm.registry import MODELS

ARCH = dict(embed_dim=16, quick_gelu=True,
            vision_cfg=dict(image_size=16, patch_size=8, width=32, head_width=16, layers=2),
            text_cfg=dict(context_length=20, vocab_size=50, width=32, heads=2, layers=2))
CFG = Config(dict(method='VoP'))


def build(seed=0, num_tokens=2, arch=ARCH):
    torch.manual_seed(seed)
    return MODELS.build(dict(
        type='TextVideoRetriever', clip=dict(type='OpenCLIP', arch=copy.deepcopy(arch)), num_frames=3,
        video_prompts=[dict(type='GenericPrompt', num_tokens=num_tokens)],
        text_prompts=[dict(type='GenericPrompt', num_tokens=num_tokens)]))


def save(model, path, **extra):
    hub = MessageHub('test')
    hub.log_scalars['train/loss'] = HistoryBuffer([3., 2.], [1, 1], 7)
    hub.runtime_info['best_score'] = np.float64(12.5)
    checkpoint = dict(meta=dict(epoch=np.int64(3), cfg='x = 1', dataset_meta=dict(dataset='demo')),
                      state_dict=model.state_dict(),
                      message_hub=dict(log_scalars=hub.log_scalars, runtime_info=hub.runtime_info,
                                       resumed_keys={'train/loss': True}), **extra)
    pack(checkpoint, model, CFG)
    torch.save(checkpoint, path)
    return path


def test_holds_the_prompts_and_whose_they_are(tmp_path):
    model = build()
    checkpoint = load_from_local_safely(str(save(model, tmp_path / 'a.pth')))
    assert set(checkpoint['state_dict']) == {'vision_tower.prompts.0.weight', 'text_tower.prompts.0.weight'}
    for name, value in checkpoint['state_dict'].items():
        assert torch.equal(value, model.state_dict()[name])
    assert checkpoint['meta']['epoch'] == 3
    assert checkpoint['meta']['vop_mm'] == describe(model, CFG, 'demo')
    assert checkpoint['meta']['vop_mm']['method'] == 'VoP'
    assert checkpoint['meta']['vop_mm']['dataset'] == 'demo'
    assert checkpoint['meta']['vop_mm']['clip'] == dict(arch='custom', fingerprint=model.clip.fingerprint)
    assert set(checkpoint) == {'meta', 'state_dict'}  # no optimiser: nothing to resume, nothing but the tensors


def test_one_to_resume_from_gives_mmengine_its_objects_back(tmp_path):
    checkpoint = load_from_local_safely(str(save(build(), tmp_path / 'a.pth', optimizer=dict(state={}))))
    assert checkpoint['message_hub']['runtime_info'] == {'best_score': 12.5}
    unpack(checkpoint)
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.data[0].tolist() == [3., 2.] and history.data[1].tolist() == [1, 1] and history.max_length == 7


def test_is_read_into_another_model_of_the_same_clip(tmp_path):
    model = build(seed=1)
    path = save(model, tmp_path / 'a.pth')
    other = build(seed=1)
    with torch.no_grad():
        for p in other.parameters():
            if p.requires_grad:
                p.zero_()
    load_trainable(other, str(path))
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_safetensors_are_read(tmp_path):
    model = build()
    state = torch.load(save(model, tmp_path / 'a.pth'), weights_only=True)['state_dict']
    save_file(state, tmp_path / 'a.safetensors')
    load_trainable(build(), str(tmp_path / 'a.safetensors'))


@pytest.mark.parametrize(('other', 'says'), [
    (lambda: build(seed=1), 'other CLIP weights: fingerprint'),
    (lambda: build(num_tokens=3), r'prompts.0.weight is \(2, 2, 32\), wanted \(2, 3, 32\)'),
    (lambda: MODELS.build(dict(type='TextVideoRetriever', clip=dict(type='OpenCLIP', arch=copy.deepcopy(ARCH)),
                               tuning=dict(type='ZeroShot'))), 'it holds vision_tower.prompts.0.weight and 1 more'),
])
def test_is_refused_to_another_model(tmp_path, other, says):
    path = save(build(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=says):
        load_trainable(other(), str(path))


def test_is_refused_on_another_architecture(tmp_path):
    checkpoint = torch.load(save(build(), tmp_path / 'a.pth'), weights_only=True)
    checkpoint['meta']['vop_mm']['clip']['arch'] = 'ViT-B-16-quickgelu'
    with pytest.raises(CheckpointError, match='made on CLIP ViT-B-16-quickgelu, this model has custom'):
        match(checkpoint, build())


class _Code:

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('legacy', [False, True])
def test_code_in_a_pickle_does_not_run(tmp_path, legacy):
    path, trace = tmp_path / 'evil.pth', tmp_path / 'it_ran'
    checkpoint = dict(state_dict={}, meta=_Code(str(trace)))
    if legacy:
        path.write_bytes(pickle.dumps(checkpoint))
    else:
        torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match='evil.pth'):
        load_from_local_safely(str(path))
    assert not trace.exists()
    torch.load(path, weights_only=False) if not legacy else pickle.loads(path.read_bytes())
    assert trace.exists()  # the file was a real attack


@pytest.mark.parametrize('content', [b'', b'garbage', 'truncated', 'no state_dict'])
def test_a_corrupt_file_is_named(tmp_path, content):
    path = tmp_path / 'a.pth'
    save(build(), path)
    if content == 'truncated':
        path.write_bytes(path.read_bytes()[:-2000])
    elif content == 'no state_dict':
        torch.save({'x': 1}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match='a.pth is'):
        load_from_local_safely(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='checkpoint not found: .*no.pth'):
        load_from_local_safely(str(tmp_path / 'no.pth'))
