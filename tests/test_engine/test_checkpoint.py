"""Checkpoints: what they hold, that they are read safely, and whom they are refused to."""
import copy
import hashlib
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from safetensors.torch import save_file

from vop_mm.config.named_files import require_file
from vop_mm.engine.checkpoint import (
    CheckpointError,
    describe,
    load_from_local_safely,
    load_trainable,
    match,
    pack,
    serialize,
    unpack,
)
from vop_mm.models.backbones.clip_weights import read_clip_weights
from vop_mm.registry import MODELS

ARCH = dict(embed_dim=16, quick_gelu=True,
            vision_cfg=dict(image_size=16, patch_size=8, width=32, head_width=16, layers=2),
            text_cfg=dict(context_length=20, vocab_size=50, width=32, heads=2, layers=2))
CFG = Config(dict(method='VoP'))


def build(seed=0, num_tokens=2, arch=ARCH):
    torch.manual_seed(seed)
    return MODELS.build(dict(
        type='TextVideoRetriever', backbone=dict(type='OpenCLIP', arch=copy.deepcopy(arch)), num_frames=3,
        frame_prompts=[dict(type='GenericPrompt', num_tokens=num_tokens)],
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
    assert checkpoint['meta']['vop_mm']['clip'] == dict(arch='custom', fingerprint=model.backbone.fingerprint)
    assert set(checkpoint) == {'meta', 'state_dict'}  # no optimizer: nothing to resume, nothing but the tensors


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
    (lambda: MODELS.build(dict(type='TextVideoRetriever', backbone=dict(type='OpenCLIP', arch=copy.deepcopy(ARCH)),
                               tuning=dict(type='ZeroShot'))), 'it holds vision_tower.prompts.0.weight and 1 more'),
])
def test_is_refused_to_another_model(tmp_path, other, says):
    path = save(build(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=f'^{path}: the checkpoint .*{says}'):
        load_trainable(other(), str(path))


@pytest.mark.parametrize('name', ['\x1b[2J', 'a\nb', 'x' * 10_000], ids=['escape', 'lines', 'long'])
def test_names_in_a_file_do_not_act_on_a_terminal(tmp_path, name):
    checkpoint = torch.load(save(build(), tmp_path / 'a.pth'), weights_only=True)
    checkpoint['state_dict'][name] = torch.zeros(2)
    torch.save(checkpoint, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='it holds |has a name of more than 1000') as said:
        load_trainable(build(), str(tmp_path / 'a.pth'))
    assert str(said.value).isprintable() and len(str(said.value)) < 400


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


def test_a_published_file_is_compared_with_its_name(tmp_path):
    for ending in ('.pth', '.safetensors'):
        content = serialize(load_from_local_safely(save(build(), tmp_path / 'a.pth')), ending)
        digits = hashlib.sha256(content).hexdigest()[:8]
        path = tmp_path / f'mine-{digits}{ending}'
        path.write_bytes(content)
        load_trainable(build(), path)
        other = tmp_path / f'mine-{int(digits, 16) ^ 1:08x}{ending}'
        other.write_bytes(content)
        with pytest.raises(CheckpointError, match=f'SHA-256 begins with {digits}, its name says .*damaged'):
            load_from_local_safely(other)
        for name in (f'{other.stem} (1)', f'{other.stem}(12)', other.stem.upper()):  # a browser's second, a FAT disk's
            (tmp_path / f'{name}{ending}').write_bytes(content)
            with pytest.raises(CheckpointError, match='damaged'):
                load_from_local_safely(tmp_path / f'{name}{ending}')
        path.rename(tmp_path / f'{path.stem.upper()} (1){ending}')
        load_from_local_safely(tmp_path / f'{path.stem.upper()} (1){ending}')
        for name in ('run-20261126', 'run-19991231', 'iter-00010000', 'a-1234567',
                     'a-123456789', f'a-{digits[:7]}G', f'a_{digits}'):
            (tmp_path / f'{name}{ending}').write_bytes(content)  # a date, and what is no hash
            load_from_local_safely(tmp_path / f'{name}{ending}')


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_a_flipped_bit_is_noticed(tmp_path, ending):
    model = build()
    content = bytearray(serialize(load_from_local_safely(save(model, tmp_path / 'a.pth')), ending))
    at = content.index(model.vision_tower.prompts[0].weight.detach().numpy().tobytes())
    content[at + 37] ^= 1
    (tmp_path / f'b{ending}').write_bytes(content)
    with pytest.raises(CheckpointError, match=f'b{ending} is refused: it is damaged: (its|the) checksum (of .* )?is'):
        load_from_local_safely(tmp_path / f'b{ending}')


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
def test_a_tensor_that_is_not_finite_is_named(tmp_path, ending, value):
    checkpoint = torch.load(save(build(), tmp_path / 'a.pth'), weights_only=True)
    checkpoint['state_dict']['text_tower.prompts.0.weight'][1, 0, 3] = value
    (tmp_path / f'b{ending}').write_bytes(serialize(checkpoint, ending))
    with pytest.raises(CheckpointError, match=rf'b{ending} is refused: .*text_tower.prompts.0.weight is not finite'):
        load_trainable(build(), tmp_path / f'b{ending}')


@pytest.mark.parametrize('change', [
    dict(meta=[1]), dict(meta='x'), dict(meta=dict(vop_mm=[1])), dict(meta=dict(vop_mm=dict(clip='x'))),
    dict(meta=dict(vop_mm=dict(clip=dict(arch=1)))), dict(meta=dict(cfg=['x'])), dict(state_dict=dict(a=1)),
    dict(state_dict={3: torch.zeros(1)}), dict(state_dict=[]), dict(meta=dict(x='a' * 2_000_000)),
    dict(meta=dict(vop_mm=dict(method='a' * 1000))), dict(meta=dict(vop_mm=dict(clip=dict(arch='a' * 1000)))),
    dict(meta=dict(x=torch.zeros(1).expand(10**12)))])
def test_a_checkpoint_of_another_form_is_one_line(tmp_path, change):
    torch.save({**torch.load(save(build(), tmp_path / 'a.pth'), weights_only=True), **change}, tmp_path / 'b.pth')
    with pytest.raises(CheckpointError, match='b.pth is (not a checkpoint of this project|refused)') as caught:
        load_from_local_safely(tmp_path / 'b.pth')
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize('options', [3, {'': 3}, 'assign'])
def test_options_of_torch_in_a_state_are_not_taken(tmp_path, options):
    """``_metadata``: with ``assign_to_params_buffers`` a module takes over the file's types."""
    checkpoint = torch.load(save(build(), tmp_path / 'a.pth'), weights_only=True)
    state = OrderedDict((name, value.double()) for name, value in checkpoint['state_dict'].items())
    if options == 'assign':
        options = {name.rpartition('.')[0]: dict(assign_to_params_buffers=True) for name in state}
    state._metadata = options
    torch.save(dict(checkpoint, state_dict=state), tmp_path / 'b.pth')
    model = build()
    load_trainable(model, tmp_path / 'b.pth')
    assert all(model.state_dict()[name].dtype == torch.float32 for name in state)


def test_metadata_that_would_never_end(tmp_path):
    """Lists that hold each other: 2**60 values, and depth without end, in a small file."""
    checkpoint = torch.load(save(build(), tmp_path / 'a.pth'), weights_only=True)
    wide = ['x']
    for _ in range(60):
        wide = [wide, wide]
    round_and_round = []
    round_and_round.append(round_and_round)
    for value in (wide, round_and_round):
        for place in (checkpoint['meta'], checkpoint['meta']['vop_mm']):
            place['method'] = value
            torch.save(checkpoint, tmp_path / 'b.pth')
            with pytest.raises(CheckpointError, match='nested too deeply, or holds too much'):
                load_from_local_safely(tmp_path / 'b.pth')
            place['method'] = 'VoP'


@pytest.mark.parametrize('kind', ['folder', 'FIFO', 'device'])
def test_what_is_no_file_is_one_line_at_once(tmp_path, kind):
    path = tmp_path / 'a.pth'
    dict(folder=path.mkdir, FIFO=lambda: os.mkfifo(path), device=lambda: path.symlink_to('/dev/zero'))[kind]()
    with pytest.raises(CheckpointError, match='a.pth is not a readable checkpoint'):
        load_from_local_safely(path)


def test_a_name_that_begins_with_a_tilde(tmp_path, monkeypatch):
    """``~x.pth`` is nobody's home."""
    monkeypatch.chdir(tmp_path)
    save(build(), '~x.pth')
    require_file('~x.pth')
    assert load_from_local_safely('~x.pth')['state_dict']
    with pytest.raises(FileNotFoundError, match='not found: ~no_such_user/x.pth'):
        load_from_local_safely('~no_such_user/x.pth')
    for read in (read_clip_weights, require_file):
        with pytest.raises(FileNotFoundError, match='not found: ~no_such_user/x.pth'):
            read('~no_such_user/x.pth')


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='checkpoint not found: .*no.pth'):
        load_from_local_safely(str(tmp_path / 'no.pth'))
