"""Checkpoints whose bytes, tensors or pickles were changed."""
import json
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

from vop_mm.engine.checkpoint import load_trainable

from ..harness import Case, Kind, WrongResult
from ..mutate import WEIRD, mutate_bytes, mutate_json
from ..watch import LOADED, MODULE
from ..world import World, check_vectors


class _Call:
    """Pickles as a call."""

    def __init__(self, function, *args) -> None:
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def prepare(world: World) -> None:
    world.content, world.searcher, world.safetensors  # noqa: B018 - made now
    from vop_mm.apis import init_model
    world.model = init_model(world.cfg)


def _tensors(rng: random.Random, world: World) -> tuple[dict, str]:
    """The good tensors, one of them changed."""
    state = OrderedDict((name, tensor.clone()) for name, tensor in world.content['state_dict'].items())
    name = rng.choice(list(state))
    tensor = state[name]
    kind = rng.choice(('nan', 'inf', 'one nan', 'huge', 'dtype', 'shape', 'missing', 'other name', 'huge view', 'meta',
                       'sparse', 'zero', 'complex', 'not a tensor'))
    if kind in ('nan', 'inf'):
        tensor.fill_(float(kind))
    elif kind == 'one nan':
        tensor.view(-1)[rng.randrange(tensor.numel())] = float(rng.choice(('nan', 'inf', '-inf')))
    elif kind == 'huge':
        tensor.fill_(rng.choice((1e30, -3e38, 1e38)))
    elif kind == 'zero':
        tensor.zero_()
    elif kind == 'dtype':
        state[name] = tensor.to(rng.choice((torch.float64, torch.float16, torch.int64, torch.bool, torch.bfloat16)))
    elif kind == 'complex':
        state[name] = tensor.to(torch.complex64)
    elif kind == 'shape':
        state[name] = rng.choice((tensor[None], tensor.reshape(-1), tensor[..., :0], torch.tensor(1.), tensor[:1]))
    elif kind == 'missing':
        del state[name]
    elif kind == 'other name':
        state[rng.choice(('', 'x', '\0', f'{name}\n', 'clip.logit_scale', '__class__', 'a' * 10_000))] = tensor.clone()
    elif kind == 'huge view':
        state[name] = torch.zeros(1).expand(1 << 40)
    elif kind == 'meta':
        state[name] = torch.empty(tensor.shape, device='meta')
    elif kind == 'sparse':
        state[name] = tensor.to_sparse()
    else:
        state[name] = rng.choice(WEIRD)
    return state, f'tensor {kind} at {name}'


def _pickles(rng: random.Random, world: World, path: Path) -> str:
    """A crafted pickle, in torch's archive or bare."""
    import os
    import subprocess
    ran = str(world.canary / 'ran')
    thing = rng.choice((
        _Call(os.system, f'touch {ran}'), _Call(subprocess.Popen, ['touch', ran]), _Call(eval, f'open({ran!r}, "w")'),
        _Call(exec, f'open({ran!r}, "w")'), _Call(open, ran, 'w'), _Call(__import__, MODULE),
        _Call(getattr, str, 'format'),
        _Call(torch.load, str(world.canary / 'victim.txt')), _Call(torch.empty, 1 << 50), _Call(bytearray, 1 << 50),
        _Call(torch.nn.Linear, 1 << 20, 1 << 20), _Call(OrderedDict, [(1, 2)]), _Call(range, 10**18),
        _Call(set, 'abc')))
    content = dict(state_dict=dict(world.content['state_dict']), meta=dict(world.content['meta']))
    content[rng.choice(('meta', 'state_dict', 'message_hub', 'extra'))] = thing
    how = rng.choice(('torch', 'torch', 'legacy', 'bare', 'bytes'))
    if how == 'bytes':  # opcodes of our own
        path.write_bytes(b'\x80\x02' + rng.choice((
            f'c{LOADED}\nThing\n)R.'.encode(), b'cos\nsystem\n(S"touch %s"\ntR.' % ran.encode(), b'}' * 100_000 + b'.',
            b'(' * 1_000_000, b'\x8c\xff' + b'a' * 255 + b'.', b'\x8d' + struct.pack('<Q', 1 << 60),
            b'r\xff\xff\xff\xff.', b'I' + b'9' * 10_000 + b'\n.', b'\x8b' + struct.pack('<i', 2**31 - 1))))
    elif how == 'bare':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == 'torch')
    return f'pickle {how}, {thing.reduced[0].__name__}'


def _archive(rng: random.Random, world: World, path: Path) -> str:
    """torch's archive with other entries."""
    kind = rng.choice(('climbing name', 'bomb', 'missing data', 'twice', 'deep', 'no pickle', 'short data'))
    with zipfile.ZipFile(world.checkpoint) as good, zipfile.ZipFile(path, 'w') as archive:
        for item in good.infolist():
            content = good.read(item)
            is_tensor = '/data/' in item.filename
            if is_tensor and kind == 'missing data' and rng.random() < .5:
                continue
            if is_tensor and kind == 'short data':
                content = content[:rng.randrange(len(content))]
            if kind == 'no pickle' and item.filename.endswith('data.pkl'):
                continue
            if kind == 'deep' and item.filename.endswith('data.pkl'):
                content = b'\x80\x02' + b']' * 200_000 + b'a' * 199_999 + b'.'
            archive.writestr(item.filename, content)
            if kind == 'twice':
                archive.writestr(item.filename, content[::-1])
        if kind == 'climbing name':
            archive.writestr('../../../canary/ran', b'x')
        if kind == 'bomb':
            archive.writestr('prompts/bomb', bytes(200 << 20), zipfile.ZIP_DEFLATED)
    return f'archive {kind}'


def make_pth(rng: random.Random, world: World, folder: Path) -> Case:
    path = folder / 'prompts.pth'
    kind = rng.choice(('bytes', 'bytes', 'bytes', 'tensors', 'tensors', 'pickle', 'archive'))
    if kind == 'bytes':
        content, about = mutate_bytes(rng, world.checkpoint.read_bytes())
        path.write_bytes(content)
    elif kind == 'tensors':
        state, about = _tensors(rng, world)
        torch.save(dict(state_dict=state, meta=world.content['meta']), path)
    elif kind == 'pickle':
        about = _pickles(rng, world, path)
    else:
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # a name that is there twice
            about = _archive(rng, world, path)
    return _case(rng, path, f'{kind}: {about}', kind)


def make_safetensors(rng: random.Random, world: World, folder: Path) -> Case:
    path, kind = folder / 'prompts.safetensors', rng.choice(('bytes', 'bytes', 'tensors', 'header', 'header', 'meta'))
    good = world.safetensors.read_bytes()
    size, = struct.unpack_from('<Q', good)
    if kind == 'bytes':
        content, about = mutate_bytes(rng, good, head=8 + size)
        path.write_bytes(content)
    elif kind == 'tensors':
        state, about = _tensors(rng, world)
        plain = all(isinstance(value, torch.Tensor) and value.device.type == 'cpu' and value.layout == torch.strided
                    and value.numel() < 10**8 for value in state.values())
        save_file({name: value.contiguous() for name, value in state.items()} if plain else {}, path,
                  metadata=dict(meta=json.dumps(world.content['meta'])))
    else:
        header = json.loads(good[8:8 + size])
        if kind == 'meta':
            text, about = mutate_json(rng, json.loads(header['__metadata__']['meta']))
            header['__metadata__']['meta'] = text
            text = json.dumps(header)
        else:
            text, about = mutate_json(rng, header)
        content = text.encode('utf-8', 'surrogateescape')
        said = rng.choice((len(content), ) * 6 + (0, 2**63, 2**64 - 1, len(content) + 1, 100_000_001))
        path.write_bytes(struct.pack('<Q', said) + content + good[8 + size:])
    return _case(rng, path, f'{kind}: {about}', kind)


def _case(rng: random.Random, path: Path, about: str, kind: str) -> Case:
    door = rng.choice(('add', 'load'))
    return Case(f'{about}; {door}', (path.name, ), dict(door=door, file=path.name, damaged=kind == 'bytes'))


def target(world: World, folder: Path, case: Case) -> None:
    path = folder / case.options['file']
    if case.options['door'] == 'load':
        load_trainable(world.model, str(path))
        model = world.model
    else:
        world.searcher.add_prompts('new', path)
        model = world.searcher.prompt_set('new').model
        check_vectors(world.searcher.encode_text(['a red circle', 'a blue square moves'], 'new'), 'texts')
    state = model.state_dict()
    for name, tensor in world.content['state_dict'].items():
        if not torch.isfinite(state[name]).all():
            raise WrongResult(f'{name} is not finite')
        if case.options['damaged'] and not torch.equal(state[name], tensor):
            raise WrongResult(f'other values than before the damage: {name}')


KINDS = [Kind('checkpoint', make_pth, target, prepare), Kind('safetensors', make_safetensors, target, prepare)]
