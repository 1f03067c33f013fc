"""What an index says of itself: config, checkpoint, back end, settings. Also of features, which are indexes too."""
import contextlib
import json
import random
import shutil
from pathlib import Path

from vop_mm.apis import VideoSearcher
from vop_mm.search import SearchIndex, merge_features

from ..configs import foreign_parts, mutate_config
from ..harness import Case, Kind
from ..mutate import WEIRD, mutate_json, places
from ..world import QUERY, World, check_hits, connect, get, put


def prepare(world: World) -> None:
    world.index, world.features  # noqa: B018 - made now


def make(rng: random.Random, world: World, folder: Path) -> Case:
    door = rng.choice(('search', 'search', 'search', 'update', 'features'))
    if door == 'features':
        shutil.copytree(world.features, folder / 'features')
        index = folder / 'features' / 'part_0_of_1'
    else:
        index = world.copy_index(folder)
    with contextlib.closing(connect(index)) as db:
        about = _change(rng, world, index, db)
        names = ['index', 'features', 'part_0_of_1', 'catalogue.db']
        # a checkpoint that isn't there is named itself
        with contextlib.suppress(TypeError, LookupError, ValueError, RecursionError):
            names.append(str(get(db, 'source')['checkpoint']).replace('\0', '')[:200] or 'index')
    return Case(f'{about}; {door}', tuple(names), dict(door=door))


def _change(rng: random.Random, world: World, index: Path, db) -> str:
    kind = rng.choice(('config', 'config', 'config', 'backend', 'backend', 'setting', 'text', 'checkpoint', 'key'))
    source = get(db, 'source')
    if kind == 'config':
        source['config'], about = mutate_config(rng, source['config'], world, index)
        put(db, 'source', source)
    elif kind == 'backend':
        about = _backend(rng, world, index, db)
    elif kind == 'setting':
        key = rng.choice(('settings', 'videos', 'source', 'generation', 'finished'))
        value = {key: get(db, key) if key != 'finished' else True}
        container, inner, path = rng.choice(places(value))
        container[inner] = rng.choice(WEIRD)
        put(db, key, value.get(key))
        about = f'weird {container[inner]!r:.30} at {"/".join(map(str, path))}'
    elif kind == 'text':
        key = rng.choice(('settings', 'videos', 'source', 'generation', 'backend'))
        text, about = mutate_json(rng, {key: get(db, key) or 0})
        with contextlib.suppress(ValueError, RecursionError, LookupError, TypeError):
            text = json.dumps(json.loads(text)[key])
        db.execute('UPDATE meta SET value = ? WHERE key = ?', (text.encode('utf-8', 'surrogateescape').decode(
            'utf-8', 'replace'), key))
    elif kind == 'checkpoint':
        source['checkpoint'] = rng.choice((
            *WEIRD, f'http://127.0.0.1:{world.canaries.port}/x.pth', f's3://127.0.0.1:{world.canaries.port}/x.pth',
            'openmmlab://x', 'modelzoo://x', 'torchvision://resnet50', 'hf-hub:x/y', 'file:///etc/passwd', '/dev/zero',
            '/dev/stdin', str(index), 'catalogue.db', '/proc/self/environ'))
        put(db, 'source', source)
        about = f'checkpoint {source["checkpoint"]!r:.40}'
    else:
        about = rng.choice(('DELETE FROM meta', "DELETE FROM meta WHERE key = 'settings'",
                            "DELETE FROM meta WHERE key = 'source'", "DELETE FROM meta WHERE key = 'videos'",
                            "DELETE FROM meta WHERE key = 'backend'", "UPDATE meta SET key = 'x' || key"))
        db.execute(about)
    return f'{kind}: {about}'


def _backend(rng: random.Random, world: World, index: Path, db) -> str:
    kind = rng.choice(('foreign', 'foreign', 'option', 'option', 'type', 'weird'))
    backend = get(db, 'backend') or dict(type='FaissIndex')
    if kind == 'foreign':
        backend = rng.choice(foreign_parts(world, index))
        (index / 'hubconf.py').write_text(f'open({str(world.canary / "ran")!r}, "w").close()\n')
    elif kind == 'type':
        backend['type'] = rng.choice((*WEIRD, 'vop_mm.FaissIndex', 'mmengine.FaissIndex', 'TextVideoRetriever',
                                      'ReadClip', 'faissindex', 'FaissIndex.', 'vop_mm.search.FaissIndex'))
    elif kind == 'option':
        option = rng.choice(('exact_up_to', 'num_probes', 'folder', 'dim', 'uri', '_scope_', 'self', 'collection'))
        backend[option] = rng.choice((*WEIRD, str(world.canary), 10**9))
    else:
        backend = rng.choice(WEIRD)
    put(db, 'backend', backend)
    return f'{kind} {backend!r:.80}'


def target(world: World, folder: Path, case: Case) -> None:
    door = case.options['door']
    if door == 'features':
        merge_features(folder / 'features', folder / 'out')
        with contextlib.closing(SearchIndex(folder / 'out')) as search_index:
            search_index.source(folder / 'out')
        return
    searcher = VideoSearcher.from_index(folder / 'index', num_workers=1, timeout=5.)
    if door == 'update':
        searcher.build_index(folder / 'videos', folder / 'index')
    with contextlib.closing(SearchIndex(folder / 'index')) as search_index:
        check_hits(searcher.search(QUERY, folder / 'index', 5), str(search_index.videos))


KINDS = [Kind('index-config', make, target, prepare)]
