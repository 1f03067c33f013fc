"""Configs in checkpoints that somebody shares, ``.pth`` and safetensors."""
import json
import random
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.tools import ROOT

from ..configs import mutate_config
from ..harness import Case, Kind, WrongResult
from ..mutate import WEIRD, places
from ..watch import LOADED, MODULE
from ..world import World, check_vectors

_FOREIGN = ('os.', 'subprocess.', 'builtins.', 'shutil.', 'runpy.', 'importlib.', 'torch.', 'numpy.', 'urllib.',
            'socket.', 'this.', MODULE, LOADED)


def prepare(world: World) -> None:
    world.content, world.searcher, world.safetensors  # noqa: B018 - made now


def make(rng: random.Random, world: World, folder: Path, suffix: str) -> Case:
    meta = json.loads(json.dumps(world.content['meta']))
    if rng.random() < .9:
        meta['cfg'], about = mutate_config(rng, meta['cfg'], world, folder)
    else:  # what stands beside the config
        container, key, path = rng.choice(places(meta))
        container[key] = rng.choice(WEIRD)
        about = f'weird {container[key]!r:.30} at meta/{"/".join(map(str, path))}'
    path = folder / f'prompts{suffix}'
    if suffix == '.pth':
        torch.save(dict(state_dict=world.content['state_dict'], meta=meta), path)
    else:
        save_file(dict(world.content['state_dict']), path, metadata=dict(meta=json.dumps(meta)))
    door = rng.choice(('add', 'add', 'add', 'publish', 'model'))
    return Case(f'{about}; {door}', (path.name, ), dict(door=door, file=path.name))


def target(world: World, folder: Path, case: Case) -> None:
    path = folder / case.options['file']
    if case.options['door'] == 'publish':
        _publish(path, folder / 'scratch')
        return
    if case.options['door'] == 'model':
        from vop_mm.apis import init_model
        init_model(world.cfg, str(path))
        return
    world.searcher.add_prompts('new', path)
    check_vectors(world.searcher.encode_text(['a red circle', 'a blue square moves'], 'new'), 'texts')
    frames = np.arange(12 * 40 * 40 * 3, dtype=np.uint8).reshape(12, 40, 40, 3)
    check_vectors(world.searcher.encode_video([frames], 'new'), 'videos')


def _publish(path: Path, out: Path) -> None:
    """Hand it on, as tools/model_converters/publish_model.py does."""
    sys.argv = ['publish_model.py', str(path), str(out / 'published.safetensors')]
    runpy.run_path(str(ROOT / 'tools/model_converters/publish_model.py'))['main']()
    published, = out.glob('published*.safetensors')
    with safe_open(published, 'pt') as file:
        text = json.loads(file.metadata()['meta']).get('cfg') or ''
    for name in re.findall(r"""type=['"]([^'"]*)""", text):
        if any(part in name for part in _FOREIGN):
            raise WrongResult(f'published with {name}')


KINDS = [
    Kind('checkpoint-config', lambda rng, world, folder: make(rng, world, folder, '.pth'), target, prepare),
    Kind('safetensors-config', lambda rng, world, folder: make(rng, world, folder, '.safetensors'), target, prepare),
]
