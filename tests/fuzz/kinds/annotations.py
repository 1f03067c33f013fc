"""Annotations, read and made into a data set, whose first videos are opened."""
import json
import math
import os
import random
from pathlib import Path

from vop_mm.datasets import VideoTextDataset
from vop_mm.datasets.annotation import read_annotation

from ..harness import Case, Kind, WrongResult
from ..mutate import mutate_bytes, mutate_json
from ..world import World

_FORMS = (
    dict(metainfo=dict(dataset='demo', split='test', protocol='1:1'),
         data_list=[dict(video_id=f'v{i}', video=f'{i}.mp4', captions=[f'a red circle {i}', 'a square'])
                    for i in range(3)]),
    dict(metainfo=dict(dataset='demo', split='test', protocol='1:1'),
         data_list=[dict(video_id=f'v{i}', video=f'{i}.mp4', captions=['a red circle'], start=0.1 * i, end=0.1 * i + .3)
                    for i in range(3)]),
    {f'{i}.mp4': [f'a red circle {i}'] for i in range(3)},
)


def prepare(world: World) -> None:
    world.videos, world.cfg  # noqa: B018 - made now


def make(rng: random.Random, world: World, folder: Path) -> Case:
    form = json.loads(json.dumps(rng.choice(_FORMS)))
    kind = rng.choice(('json', 'json', 'json', 'path', 'path', 'bytes', 'file'))
    file, names = folder / 'test.json', ('test.json', )
    if kind == 'json':
        text, about = mutate_json(rng, form)
        file.write_bytes(text.encode('utf-8', rng.choice(('surrogateescape', 'replace'))))
    elif kind == 'path':
        about = rng.choice((
            str(world.canary / 'secret.mp4'), '../canary/secret.mp4', '../../canary/secret.mp4',
            '0.mp4/../../../canary/secret.mp4', './0.mp4', '//0.mp4', '0.mp4\0', 'fifo.mp4', '/dev/stdin', '/dev/zero',
            'concat:0.mp4', 'file:0.mp4', f'http://127.0.0.1:{world.canaries.port}/0.mp4', '~/0.mp4', '$HOME',
            '\udcff.mp4', 'a' * 5000, '.', '..', '', '0.mp4?x', '%2e%2e/0.mp4', 'pipe:0', 'data:video/mp4;base64,AAAA'))
        if 'data_list' in form:
            form['data_list'][0]['video'] = about
        else:
            form[about] = form.pop('0.mp4')
        file.write_text(json.dumps(form))
        names = ('test.json', *filter(None, (about, ascii(about)[1:-1], repr(about)[1:-1])))
    elif kind == 'bytes':
        content, about = mutate_bytes(rng, json.dumps(form, indent=rng.choice((None, 1))).encode())
        file.write_bytes(content)
    else:
        about = rng.choice(('folder', 'fifo', 'utf-16', 'gbk', 'bom', 'large', 'nul', 'dangling link'))
        if about == 'folder':
            file.mkdir()
        elif about == 'fifo':
            os.mkfifo(file)
        elif about == 'dangling link':
            file.symlink_to(folder / 'nothing')
        else:
            form['note'] = '犬'
            text = json.dumps(form, ensure_ascii=False)
            file.write_bytes({'utf-16': text.encode('utf-16'), 'gbk': text.encode('gbk'),
                              'bom': b'\xef\xbb\xbf' + text.encode(), 'nul': bytes(100),
                              'large': b'[' + b'{"a": [1, 2]}, ' * 200_000 + b'0]'}[about])
    videos = folder / 'videos'
    videos.mkdir()
    for path in world.videos.iterdir():
        (videos / path.name).write_bytes(path.read_bytes())
    os.mkfifo(videos / 'fifo.mp4')
    return Case(f'{kind}: {about!r:.60}', (*names, *(p.name for p in videos.iterdir())))


def target(world: World, folder: Path, case: Case) -> None:
    _, entries = read_annotation('test.json')
    for entry in entries:
        for key in ('start', 'end'):
            if entry.get(key) is not None and not math.isfinite(entry[key]):
                raise WrongResult(f'{key} is {entry[key]!r:.40}')
        if not all(isinstance(caption, str) and caption.strip() for caption in entry['captions']):
            raise WrongResult(f'captions {entry["captions"]!r:.80}')
    pipeline = world.cfg.test_dataloader.dataset.pipeline
    pipeline = [dict(pipeline[0], timeout=5), *pipeline[1:]]
    data = VideoTextDataset('test.json', data_root=str(folder), data_prefix=dict(video='videos'), pipeline=pipeline,
                            test_mode=True)
    for i in range(min(len(data), 3)):
        item = data[i]
        if item['inputs'].ndim != 4 or len(item['data_samples'].tokens) != len(item['data_samples'].captions):
            raise WrongResult(f'an item: {tuple(item["inputs"].shape)}')
        inside = os.path.normpath(item['data_samples'].filename).startswith(f'{folder / "videos"}{os.sep}')
        if not inside:
            raise WrongResult(f'a path leads out of the folder: {item["data_samples"].filename!r:.80}')


KINDS = [Kind('annotation', make, target, prepare, seconds=30)]
