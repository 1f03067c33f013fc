"""Checkpoints to go on training from, and work directories that name one, as tools/train.py reads them."""
import contextlib
import copy
import io
import json
import random
from pathlib import Path

import torch

from vop_mm.engine.experiment import build_runner

from ..configs import mutate_config
from ..harness import Case, Kind, WrongResult
from ..mutate import HUGE, WEIRD, mutate_bytes, places
from ..world import World

_FILE = 'epoch_1.pth'


def prepare(world: World) -> None:
    data = world.good / 'data'
    data.mkdir()
    entries = [dict(video_id=path.stem, video=str(Path('..') / 'videos' / path.name), captions=['a red circle moves'])
               for path in sorted(world.videos.iterdir())]
    for entry in entries:
        (data / Path(entry['video']).name).write_bytes((data / entry['video']).read_bytes())
        entry['video'] = Path(entry['video']).name
    for split in ('train', 'dev', 'test'):
        metainfo = dict(dataset='fuzz', split=split, protocol='1:1')
        (data / f'{split}.json').write_text(json.dumps(dict(metainfo=metainfo, data_list=entries)))
    cfg = copy.deepcopy(world.cfg)
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    cfg.merge_from_dict({f'{loader}.{key}': value for loader in loaders for key, value in {
        'num_workers': 0, 'persistent_workers': False, 'dataset.data_root': str(data),
        'dataset.data_prefix': dict(video='')}.items()})
    cfg.merge_from_dict({'train_dataloader.batch_size': 3, 'train_cfg.max_epochs': 1, 'param_scheduler.0.T_max': 1,
                         'launcher': 'none'})
    world.train_cfg = cfg
    with contextlib.redirect_stdout(io.StringIO()):
        runner = _runner(world, world.folder / 'work')
        runner.train()
    world.resumable = torch.load(world.folder / 'work' / _FILE, weights_only=True)


def _runner(world: World, work: Path, load_from: str | None = None, resume: bool = False):
    cfg = copy.deepcopy(world.train_cfg)
    cfg.work_dir, cfg.load_from, cfg.resume = str(work), load_from, resume
    return build_runner(cfg)


def make(rng: random.Random, world: World, folder: Path) -> Case:
    content = copy.deepcopy(world.resumable)
    path, kind = folder / _FILE, rng.choice(('config', 'config', 'config', 'value', 'value', 'value', 'bytes', 'last'))
    door, last = rng.choice(('resume', 'resume', 'load')), None
    if kind == 'config':
        key = rng.choice(('config', 'config', 'cfg'))
        text, about = mutate_config(rng, content['meta']['cfg'], world, folder)
        content['meta'][key] = rng.choice((text, f'_base_ = {str(world.canary / "evil.py")!r}\n',
                                           f'x = __import__("os").system("touch {world.canary / "ran"}")\n'))
        about = f'meta/{key}: {about}'
    elif kind == 'value':
        part = {key: content[key] for key in ('meta', 'message_hub', 'optimizer', 'param_schedulers') if key in content}
        container, key, where = rng.choice(places(part))
        container[key] = rng.choice((*WEIRD, HUGE, -1, torch.zeros(3), [torch.zeros(2)]))
        content.update(part)
        about = f'{"/".join(map(str, where))} = {container[key]!r:.30}'
    torch.save(content, path)
    if kind == 'bytes':
        data, about = mutate_bytes(rng, path.read_bytes())
        path.write_bytes(data)
    elif kind == 'last':
        about = last = rng.choice((
            'http://127.0.0.1:{port}/x.pth', 's3://127.0.0.1:{port}/x', 'openmmlab://x', 'modelzoo://x', 'local://x',
            'torchvision://resnet50', '{canary}/victim.txt', '/dev/zero', '', '\0', 'x\ny', 'a' * 5000, '../x.pth',
            'petrel://x/y', 'mmcls://x', 'pavi://x', 'ftp://127.0.0.1:{port}/x', '/proc/self/mem', 'fifo'))
        last, door = last.format(port=world.canaries.port, canary=world.canary), 'auto'
    work = folder / 'work'
    work.mkdir()
    if door == 'auto':
        (work / 'last_checkpoint').write_text(last)
    names = (_FILE, 'last_checkpoint', *([last] if last else []))
    return Case(f'{kind}: {about!s:.80}; {door}', names, dict(door=door, damaged=kind == 'bytes'))


def target(world: World, folder: Path, case: Case) -> None:
    door = case.options['door']
    runner = _runner(world, folder / 'work', None if door == 'auto' else str(folder / _FILE), door != 'load')
    runner.train()
    for name, parameter in runner.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise WrongResult(f'{name} is not finite')
    if case.options['damaged'] and door == 'resume':  # nothing is left to train
        state, good = runner.model.state_dict(), world.resumable['state_dict']
        moments = [item for _, item in _tensors(runner.optim_wrapper.state_dict())]
        expected = [item for _, item in _tensors(world.resumable['optimizer'])]
        same = len(moments) == len(expected) and all(map(torch.equal, moments, expected))
        if not same or not all(torch.equal(state[name], tensor) for name, tensor in good.items()):
            raise WrongResult('other values than before the damage')


def _tensors(value, name: str = '') -> list[tuple[str, torch.Tensor]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [(name, value)] if isinstance(value, torch.Tensor) else [
        found for key, item in items for found in _tensors(item, f'{name}/{key}')]


KINDS = [Kind('resume', make, target, prepare, seconds=40)]
