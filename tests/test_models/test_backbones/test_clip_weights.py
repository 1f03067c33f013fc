"""The same weights from every kind of file; nothing in a file is run; what is wrong is said in one line."""
import hashlib
import os
import pickle
import re
import struct
import time
import zipfile

import huggingface_hub
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.clips import SMALL, build_clip
from tests.versions import needs
from vop_mm.models.backbones import pretrained
from vop_mm.models.backbones.base import fingerprint
from vop_mm.models.backbones.clip_weights import read_clip_weights
from vop_mm.models.backbones.openai_arch import openai_arch

PLAIN_GELU = dict(SMALL, quick_gelu=False)


class Tree(nn.Module):
    """Modules, parameters and buffers of batch norms under given names, in the form of OpenAI's archives."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            module = self
            *path, last = name.split('.')
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, Tree({}))
                module = getattr(module, part)
            if last.startswith(('running_', 'num_batches')):
                module.register_buffer(last, value)
            else:
                module.register_parameter(last, nn.Parameter(value))


class Root(Tree):

    def forward(self, x):
        return x * self.logit_scale.float()


def save_archive(state, path):
    """Traced, with three numbers as buffers and a tensor that is no weight, as OpenAI's."""
    tree = Root(state)
    for name, value in dict(input_resolution=32, context_length=77, vocab_size=300).items():
        tree.register_buffer(name, torch.tensor(value))
    torch.jit.trace(tree, torch.ones(1)).save(str(path))


def save_scripted(state, path):
    tree = Root(state)
    tree.attn_mask = torch.ones(2, 2)  # a plain attribute, which isn't in the state dict
    torch.jit.script(tree).save(str(path))


SAVERS = {
    'state_dict.pt': torch.save,
    'legacy.pth': lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False),
    'checkpoint.pt': lambda s, p: torch.save(
        dict(epoch=3, name='run', state_dict={f'module.{k}': v for k, v in s.items()}), p),
    'extras.pt': lambda s, p: torch.save(dict(s, input_resolution=torch.tensor(32), context_length=77,
                                              vocab_size=torch.tensor(300)), p),
    'weights.safetensors': save_file,
    'archive.pt': save_archive,
    'scripted.pt': save_scripted,
    'archive': save_archive,
}


@pytest.fixture(scope='module')
def state():
    """Weights that half precision can hold, so that every file holds the same numbers."""
    return {k: v.half().float() for k, v in build_clip(seed=3).model.state_dict().items()}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('half', [False, True], ids=['float32', 'float16'])
@pytest.mark.parametrize('name', SAVERS)
def test_every_form_of_file_gives_the_same_bits_and_fingerprint(tmp_path, state, name, half):
    path = tmp_path / name
    SAVERS[name]({k: v.half() if half else v for k, v in state.items()}, path)
    clip = build_clip(weights=str(path))
    loaded = clip.model.state_dict()
    assert loaded.keys() == state.keys()
    for key, value in state.items():
        assert loaded[key].dtype == torch.float32 and torch.equal(loaded[key], value), key
    assert clip.fingerprint == fingerprint(state)


@pytest.mark.filterwarnings('ignore')
def test_an_archive_is_read_as_torch_reads_it(tmp_path, state):
    for saver in (save_archive, save_scripted):
        saver({k: v.half() for k, v in state.items()}, tmp_path / 'a.pt')
        theirs = torch.jit.load(str(tmp_path / 'a.pt')).state_dict()
        ours = read_clip_weights(tmp_path / 'a.pt').state_dict
        assert all(torch.equal(ours[k], theirs[k].float()) for k in ours)
        assert set(theirs) - set(ours) <= {'input_resolution', 'context_length', 'vocab_size'}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['archive.pt', 'extras.pt'])
def test_openai_weights_are_refused_without_quick_gelu(tmp_path, state, name):
    SAVERS[name](state, tmp_path / name)
    with pytest.raises(ValueError, match='quick-GELU'):
        build_clip(PLAIN_GELU, weights=str(tmp_path / name))


@pytest.mark.parametrize('tag', ['openai', pytest.param(
    'metaclip_400m', marks=needs('open_clip_torch', '2.30', 'not among its tags'))])
def test_tags_of_quick_gelu_weights_are_refused_without_it(tmp_path, monkeypatch, tag):
    torch.save({}, tmp_path / 'w.pt')
    for module, name in ((pretrained, 'hub_file'), (open_clip.pretrained, 'download_pretrained')):
        monkeypatch.setattr(module, name, lambda *_, **__: str(tmp_path / 'w.pt'))
    with torch.device('meta'), pytest.raises(ValueError, match='quick-GELU.*ViT-B-16-quickgelu'):
        build_clip('ViT-B-16', weights=tag, rough=0)


def test_a_fingerprint_changes_with_any_value_name_or_shape(state):
    first = fingerprint(state)
    assert re.fullmatch('[0-9a-f]{16}', first)
    assert first == fingerprint(dict(reversed(state.items()))) == fingerprint({k: v.double() for k, v in state.items()})
    for name in ('visual.proj', 'logit_scale', 'transformer.resblocks.2.mlp.c_fc.bias'):
        changed = state[name].clone()
        changed.view(-1)[-1] = torch.nextafter(changed.view(-1)[-1], torch.tensor(9.))
        assert fingerprint(dict(state, **{name: changed})) != first
    assert fingerprint({'x' if k == 'visual.proj' else k: v for k, v in state.items()}) != first
    assert fingerprint(dict(state, **{'visual.proj': state['visual.proj'].reshape(-1)})) != first


def test_a_fingerprint_is_the_hash_that_it_was():
    """Published checkpoints hold it: it can't change with a version."""
    by_hand = b'a()' + struct.pack('<f', 0.5) + b'b(2, 3)' + struct.pack('<6f', *range(6))
    digits = fingerprint({'b': torch.arange(6.).view(2, 3), 'a': torch.tensor(0.5)})
    assert digits == hashlib.sha256(by_hand).hexdigest()[:16] == '5c7c3bb63502c0ce'


class _Code:

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (self.trace,)


class _Writer(nn.Module):
    """A module that runs code when its archive is loaded."""

    def __init__(self, trace: str):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.trace = trace

    def forward(self, x):
        return x * self.weight

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training, self.trace

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool, str]):
        self.weight = state[0]
        self.training = state[1]
        self.trace = state[2]
        torch.save(state[0], state[2])


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors', 'archive', 'pickle in an archive'])
def test_code_in_a_file_is_not_run(tmp_path, kind):
    trace, path = tmp_path / 'it_ran', tmp_path / ('w.safetensors' if kind == 'safetensors' else 'w.pt')
    if kind == 'zip':
        torch.save({'visual.proj': _Code(str(trace))}, path)
        run = lambda: torch.load(path, weights_only=False)  # noqa: E731
    elif kind == 'archive':
        torch.jit.script(_Writer(str(trace))).save(str(path))
        run = lambda: torch.jit.load(str(path))  # noqa: E731
    elif kind == 'pickle in an archive':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('w/code/__torch__.py', '')
            archive.writestr('w/data.pkl', pickle.dumps(_Code(str(trace))))
        run = lambda: pickle.loads(zipfile.ZipFile(path).read('w/data.pkl'))  # noqa: E731
    else:
        path.write_bytes(pickle.dumps(_Code(str(trace))))
        run = lambda: pickle.loads(path.read_bytes())  # noqa: E731
    with pytest.raises(ValueError, match=f'{path.name} is not a readable file of CLIP weights') as error:
        read_clip_weights(path)
    assert '\n' not in str(error.value)
    assert not trace.exists()
    run()
    assert trace.exists()  # the file was a real attack


def _module(attributes=b''):
    return b'c__torch__.m\nM\n)\x81}(' + attributes + b'ub'


def _text(text):
    return b'X' + len(text).to_bytes(4, 'little') + text.encode()


def _stored(names, size):
    return b''.join(_text(name) + b'ctorch._utils\n_rebuild_tensor_v2\n((' + _text('storage')
                    + b'ctorch\nFloatStorage\n' + _text('0') + _text('cpu') + b'J' + (size // 4).to_bytes(4, 'little')
                    + b'tQK\x00K\x01\x85K\x01\x85\x89}tR' for name in names)


def _in_each_other(depth):
    """2**depth ways to one module."""
    content = _module() + b'q\x010'
    for _ in range(depth):
        content += _module(_text('a') + b'h\x01' + _text('b') + b'h\x01') + b'q\x010'
    return content + b'h\x01'


BOMBS = {
    'modules in each other': (_in_each_other(40), b'', 0),
    'a module in itself': (b'c__torch__.m\nM\n)\x81q\x01}(' + _text('a') + b'h\x01ub', b'', 0),
    'compressed tensors': (_module(_stored('ab', 1 << 26)), b'__parameters__ = ["a", "b"]', 1 << 26),
    'compressed code': (_module(), b' ' * (1 << 26), 0),
    'a long memo': (b']r\xff\xff\xff\x7f', b'', 0),
}


@pytest.mark.parametrize('kind', BOMBS)
def test_a_small_archive_that_would_never_end(tmp_path, kind):
    pickled, code, size = BOMBS[kind]
    with zipfile.ZipFile(tmp_path / 'w.pt', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('w/data.pkl', b'\x80\x02' + pickled + b'.')
        archive.writestr('w/code/m.py', code)
        archive.writestr('w/data/0', bytes(size))
    assert (tmp_path / 'w.pt').stat().st_size < 100_000
    start = time.perf_counter()
    with pytest.raises(ValueError, match='w.pt is not a readable file of CLIP weights: its? '):
        read_clip_weights(tmp_path / 'w.pt')
    assert time.perf_counter() - start < 10


def test_code_is_looked_through_once(tmp_path):
    start = time.perf_counter()
    with zipfile.ZipFile(tmp_path / 'w.pt', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('w/data.pkl', b'\x80\x02' + _module(_stored('a', 4)) + b'.')
        archive.writestr('w/code/m.py', b'  __parameters__ = ["a", ]\n' + b'__parameters__ = [' * 300_000)
        archive.writestr('w/data/0', bytes(4), zipfile.ZIP_STORED)
    assert read_clip_weights(tmp_path / 'w.pt').state_dict == {'a': torch.zeros(1)}
    assert time.perf_counter() - start < 5


def test_a_tensor_that_many_parameters_share_is_read_once(tmp_path):
    names, size = [f'p{i}' for i in range(100)], 4 << 20
    with zipfile.ZipFile(tmp_path / 'w.pt', 'w') as archive:
        archive.writestr('w/data.pkl', b'\x80\x02' + _module(_stored(names, size)) + b'.')
        archive.writestr('w/code/m.py', f'  __parameters__ = {names}'.replace("'", '"'))
        archive.writestr('w/data/0', bytes(size))
    state = read_clip_weights(tmp_path / 'w.pt').state_dict
    assert len(state) == 100 and len({value.untyped_storage().data_ptr() for value in state.values()}) == 1


@pytest.mark.parametrize('name', ['w.pt', 'w.safetensors'])
@pytest.mark.parametrize('content', [b'', b'garbage' * 50, 'truncated'])
def test_a_broken_file_is_named_in_one_line(tmp_path, state, name, content):
    path = tmp_path / name
    SAVERS['weights.safetensors' if name.endswith('s') else 'state_dict.pt'](state, path)
    path.write_bytes(path.read_bytes()[:-500] if content == 'truncated' else content)
    with pytest.raises(ValueError, match=f'{name} is not a readable file of CLIP weights') as error:
        build_clip(weights=str(path))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [[1, 2], {'a': 3}, {'state_dict': {'a': 'b'}}, torch.ones(3)])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / 'w.pt')
    with pytest.raises(ValueError, match='w.pt holds no state dict of tensors'):
        build_clip(weights=str(tmp_path / 'w.pt'))


def test_weights_of_another_architecture_are_refused_in_one_line(tmp_path, state):
    save_file(state, tmp_path / 'w.safetensors')
    with pytest.raises(ValueError, match="don't fit the CLIP architecture custom: size mismatch") as error:
        build_clip(dict(SMALL, embed_dim=32), weights=str(tmp_path / 'w.safetensors'))
    assert '\n' not in str(error.value)
    save_file({k: v for k, v in state.items() if k != 'visual.proj'}, tmp_path / 'v.safetensors')
    with pytest.raises(ValueError, match=r'Missing key\(s\).*visual.proj'):
        build_clip(weights=str(tmp_path / 'v.safetensors'))


@pytest.mark.parametrize('path', ['no/such/file.pt', 'no_such_file.safetensors', '~/no_such_file.pt'])
def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=f'CLIP weights not found: .*{path.lstrip("~")}'):
        build_clip(weights=path)


def test_a_path_may_start_at_home(tmp_path, monkeypatch, state):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(state, tmp_path / 'w.pt')
    assert build_clip(weights='~/w.pt').fingerprint == fingerprint(state)


def test_an_unknown_tag_lists_those_there_are():
    with torch.device('meta'), pytest.raises(
            ValueError, match="no weights 'opnai' for ViT-B-32-quickgelu; it has: .*openai"):
        build_clip('ViT-B-32-quickgelu', weights='opnai')


@pytest.mark.parametrize('hub', [True, False])
def test_without_a_connection_the_error_says_how_to_use_a_file(monkeypatch, hub):
    def offline(*args, **kwargs):
        raise OSError('no route to host')

    if not hub:
        monkeypatch.setattr(pretrained, 'tag_record', lambda *_: dict(url='https://x.org/w.pt'))
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', offline)
    monkeypatch.setattr(open_clip.pretrained, 'download_pretrained', offline)
    says = r'hf download timm/\S+ --local-dir FOLDER.*=FOLDER/FILE$' if hub else 'https://x.org/w.pt .*=/path/to/file$'
    with torch.device('meta'), pytest.raises(
            ConnectionError, match="'openai' of ViT-B-32-quickgelu.*OSError.*" + says) as error:
        build_clip('ViT-B-32-quickgelu', weights='openai', cache_dir='/nonexistent')
    assert '\n' not in str(error.value)


def test_the_architecture_of_openai_weights_is_read_off_their_shapes():
    with torch.device('meta'):
        state = build_clip('ViT-B-16-quickgelu').model.state_dict()
    assert openai_arch(state) == 'ViT-B-16-quickgelu'
    arch = dict(SMALL, vision_cfg=dict(image_size=32, patch_size=16, width=128, layers=3),
                text_cfg=dict(SMALL['text_cfg'], width=64, heads=1))
    assert openai_arch(build_clip(arch).model.state_dict()) == arch
    with pytest.raises(ValueError, match='not the weights of an OpenAI ViT: there is no visual.conv1.weight'):
        openai_arch({})
