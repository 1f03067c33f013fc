"""Stores of decoded frames: damaged pages, files that were cut off, and other values than those that were written."""
import json
import random
import shutil
from pathlib import Path

import lmdb
import numpy as np

from tests.videos import painted_frame
from vop_mm.datasets import FrameStoreError
from vop_mm.datasets.frame_store import FrameStore, FrameStoreWriter, clip_key, encode_frames

from ..harness import Case, Kind, WrongResult
from ..mutate import WEIRD, mutate_bytes, mutate_json, places
from ..world import World

_CLIPS = [('a.mp4', None, None), ('b.mp4', 1., 2.5), ('c.mp4', None, None), ('bad.mp4', None, None)]


def prepare(world: World) -> None:
    world.stores = {}
    for name, quality in (('raw', None), ('jpeg', 90)):
        path = world.good / f'store_{name}'
        store = FrameStoreWriter(path, dict(clip=dict(size=[48, 80]), quality=quality))
        for i, (video, start, end) in enumerate(_CLIPS):
            frames = [painted_frame(100 * i + j) for j in range(6)]
            data, lengths = encode_frames(frames, quality)
            info = dict(source=[1000, 1_700_000_000], shape=[6, 48, 80, 3], total_frames=20, lengths=lengths,
                        frame_times=[i / 2 for i in range(6)])
            if video == 'bad.mp4':
                info, data = dict(source=[1000, 1_700_000_000], unreadable='not a video'), b''
            store.add(video, start, end, info, data)
        store.set_finished(True)
        store.close()
        world.stores[name] = path, _read(path)


def make(rng: random.Random, world: World, folder: Path) -> Case:
    name = rng.choice(('raw', 'jpeg'))
    shutil.copytree(world.stores[name][0], folder / 'store')
    file = folder / 'store' / 'data.mdb'
    kind = rng.choice(('bytes', 'bytes', 'bytes', 'pages', 'cut', 'value', 'value', 'value', 'beside'))
    content = file.read_bytes()
    if kind == 'bytes':
        content, about = mutate_bytes(rng, content, head=256)
        file.write_bytes(content)
    elif kind == 'pages':  # in heads of pages: kind, free space, numbers of nodes, and where they lie
        data, about = bytearray(content), 'heads of pages'
        for _ in range(rng.choice((1, 2, 8))):
            place = 4096 * rng.randrange(len(data) // 4096) + rng.randrange(rng.choice((16, 64)))
            data[place] = rng.choice((0, 1, 255, data[place] ^ 1 << rng.randrange(8)))
        file.write_bytes(data)
    elif kind == 'cut':
        size = rng.choice((0, 1, 4096, 8192, len(content) // 2, len(content) - 4096, len(content) - 1,
                           rng.randrange(len(content))))
        file.write_bytes(content[:size])
        about = f'to {size} of {len(content)} bytes'
    elif kind == 'value':
        about = _value(rng, folder / 'store')
    else:
        about = rng.choice(('fifo', 'link', 'folder', 'lock link'))
        if about == 'lock link':
            (folder / 'store' / 'lock.mdb').unlink(missing_ok=True)
            (folder / 'store' / 'lock.mdb').symlink_to(world.canary / 'victim.txt')
        else:
            import os
            file.unlink()
            {'fifo': lambda: os.mkfifo(file), 'link': lambda: file.symlink_to(world.canary / 'victim.txt'),
             'folder': file.mkdir}[about]()
    door = rng.choice(('read', 'read', 'read', 'write'))
    return Case(f'{name}, {kind}: {about}; {door}', ('store', ), dict(name=name, door=door,
                                                                    damaged=kind in ('bytes', 'pages', 'cut')))


def _value(rng: random.Random, store: Path) -> str:
    """Another value under one of the keys."""
    with lmdb.open(str(store), map_size=1 << 28) as env, env.begin(write=True) as txn:
        clip = rng.choice(_CLIPS)
        key = rng.choice((b'settings', b'finished', b'i' + clip_key(*clip), b'i' + clip_key(*clip),
                          b'i' + clip_key(*clip), b'f' + clip_key(*clip)))
        old = txn.get(key)
        if key[:1] == b'f' or rng.random() < .2:
            new, about = mutate_bytes(rng, old or b'x')
        elif rng.random() < .5:
            value = json.loads(old)
            container, inner, path = rng.choice(places(value))
            container[inner] = rng.choice((*WEIRD, [6, 48, 80], [-1, 48, 80, 3], [2**40, 48, 80, 3], [6, 0, 80, 3],
                                           [10**9] * 6, [-5] * 6, [6.0, 48, 80, 3], ['6', 48, 80, 3]))
            new, about = json.dumps(value).encode(), f'{"/".join(map(str, path))} = {container[inner]!r:.30}'
        else:
            text, about = mutate_json(rng, json.loads(old))
            new = text.encode('utf-8', 'surrogateescape')
        if rng.random() < .1:
            txn.delete(key)
            about = 'removed'
        elif rng.random() < .05:
            new, about = b'0' * (20 << 20), '20 MB'
            txn.put(key, new)
        else:
            txn.put(key, new)
    return f'{key[:8]!r} {about}'


def _read(path: Path) -> list:
    """All that a store says."""
    store = FrameStore(path)
    found = []
    for clip in _CLIPS:
        info = store.info(*clip)
        if info is None:  # as the transform that reads them says
            raise FrameStoreError(str(path), f'{clip[0]} is not in it')
        frames = None if 'unreadable' in info else store.frames(info, range(len(info['frame_times'])))
        found.append((info, frames))
    return found


def target(world: World, folder: Path, case: Case) -> None:
    path = folder / 'store'
    if case.options['door'] == 'write':  # tools/data/cache_frames.py goes on with what is there
        good = world.stores[case.options['name']][0]
        store = FrameStoreWriter(path, FrameStore(good).settings)
        for clip in _CLIPS:
            store.info(*clip)
        store.set_finished(True)
        store.close()
    found = _read(path)
    for (info, frames), (good, expected) in zip(found, world.stores[case.options['name']][1]):
        if frames is not None and (frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3):
            raise WrongResult(f'frames {frames.dtype} {frames.shape}')
        if case.options['damaged'] and (info != good or (frames is None) != (expected is None)
                                        or frames is not None and not np.array_equal(frames, expected)):
            raise WrongResult(f'other frames than before the damage: {info!r:.200}')


KINDS = [Kind('lmdb', make, target, prepare)]
