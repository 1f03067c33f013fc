import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from tests import datasets
from tests.videos import encode_video, read_index
from vop_mm.datasets import AnnotationError, TarVideoTextDataset, VideoDecodeError, VideoTextDataset, tar_shards
from vop_mm.registry import DATASETS

pytestmark = pytest.mark.usefixtures('place')

PIPELINE = [dict(type='ReadClip', num_frames=3, mode='random', size=(20, 40)), *datasets.PIPELINE[2:]]


def write_shard(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> str:
    with tarfile.open(path, 'w', format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Six videos of 60 frames, numbered from 100 i, in a folder and in two shards."""
    folder = tmp_path_factory.mktemp('data')
    entries, shards = [], [{}, {}]
    for i in range(6):
        path = encode_video(folder / f'v{i}.mp4', 60, first=100 * i)
        captions = [f'{letter} of {i}' for letter in 'abc'[:1 + i % 3]]
        entries.append(dict(video_id=f's-{i // 3}/k{i}', video=f'v{i}.mp4', captions=captions))
        shard = shards[i // 3]
        shard[f'k{i}.mp4'] = Path(path).read_bytes()
        if len(captions) == 1:
            shard[f'k{i}.txt'] = captions[0].encode() + b'\n'
        else:
            shard[f'k{i}.json'] = json.dumps(dict(captions=captions, width=80)).encode()
        shard[f'k{i}.cls'] = b'7'
    (folder / 'a.json').write_text(json.dumps(dict(data_list=entries)))
    for i, shard in enumerate(shards):
        write_shard(folder / f's-{i}.tar', shard)
    return folder


def build(data, shards='s-{0..1}.tar', **kwargs) -> TarVideoTextDataset:
    return DATASETS.build(dict(dict(type='TarVideoTextDataset', shards=shards, data_root=str(data), pipeline=PIPELINE),
                               **kwargs))


def test_the_same_items_as_from_a_folder(data):
    """Frames and their order are those of the files, also what is drawn in each epoch."""
    tar = build(data)
    files = VideoTextDataset(ann_file='a.json', data_root=str(data), data_prefix=dict(video=''), pipeline=PIPELINE)
    assert len(tar) == len(files) == 12
    for epoch in (0, 3):
        tar.set_epoch(epoch, 5)
        files.set_epoch(epoch, 5)
        for i in range(12):
            a, b = tar[i], files[i]
            assert torch.equal(a['inputs'], b['inputs'])
            one, other = a['data_samples'], b['data_samples']
            assert (one.video_id, one.captions, one.video_index) == (other.video_id, other.captions, other.video_index)
            assert {read_index(frame.permute(1, 2, 0).numpy()) // 100 for frame in a['inputs']} == {one.video_index}
    assert tar[1]['data_samples'].filename == 's-0.tar/k1.mp4'
    assert len(build(data, test_mode=True)) == 6


def test_workers(data, place):
    dataset = build(data)
    expected = [dataset[i]['inputs'] for i in range(12)]
    for workers in (1, 2):
        batches = list(DataLoader(dataset, batch_size=3, num_workers=workers, collate_fn=pseudo_collate))
        assert torch.equal(torch.stack([x for batch in batches for x in batch['inputs']]), torch.stack(expected))
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]['inputs'], expected[3])
    assert os.listdir(place) == []


def test_damaged_videos_and_changed_shards(data, tmp_path):
    content = (data / 'v0.mp4').read_bytes()
    write_shard(tmp_path / 's.tar', {'good.mp4': content, 'good.txt': b'a', 'bad.mp4': content[:500], 'bad.txt': b'b'})
    dataset = build(tmp_path, 's.tar')
    sample = dataset[1]['data_samples']  # replaced
    assert sample.video_id == 's/good' and sample.unreadable[0][0] == 's.tar/bad.mp4'
    with pytest.raises(VideoDecodeError, match=r"can't decode s\.tar/bad\.mp4: "):
        build(tmp_path, 's.tar', on_unreadable='error')[1]
    dataset = build(tmp_path, 's.tar', on_unreadable='error')
    os.utime(tmp_path / 's.tar', (1, 1))
    with pytest.raises(VideoDecodeError, match='has changed since its members were listed'):
        dataset[0]
    os.unlink(tmp_path / 's.tar')
    with pytest.raises(VideoDecodeError, match='No such file'):
        dataset[0]


def test_the_limit_holds_for_members(data, monkeypatch):
    monkeypatch.setenv('VOP_MM_MAX_FETCHED', '100')
    with pytest.raises(VideoDecodeError, match=r's-0\.tar/k0\.mp4: [\d,]+ bytes are too many to download'):
        build(data, on_unreadable='error')[0]


@pytest.mark.parametrize('form', [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_and_captions(tmp_path, form):
    long = 'x' * 90 + '/' + 'y' * 90
    path = write_shard(tmp_path / 'my.shard.tar', {
        './a.b.cam.MKV': b'1', './a.json': b'["one", "two"]', 'a/a.mp4': b'2', 'a/a.txt': '\ufeff ü\n v '.encode(),
        f'{long}.webm': b'3', f'{long}.json': b'{"caption": "c", "start": 1, "end": 2.5, "fps": 3}',
        '__key__.mp4': b'4', '.hidden.mp4': b'5', 'alone.txt': b'no video', 'z.mp4': b'6',
        'z.txt': b'mine', 'z.json': b'{"caption": "its"}',
    }, form)
    entries, members = tar_shards.read_shard(path, 4)
    assert entries == [
        dict(video_id='my.shard/a', video='my.shard.tar/a.b.cam.MKV', captions=['one', 'two']),
        dict(video_id='my.shard/a/a', video='my.shard.tar/a/a.mp4', captions=['ü v']),
        dict(video_id=f'my.shard/{long}', video=f'my.shard.tar/{long}.webm', captions=['c'], start=1, end=2.5),
        dict(video_id='my.shard/z', video='my.shard.tar/z.mp4', captions=['mine'])]
    data = Path(path).read_bytes()
    assert {m.shard for m in members.values()} == {4}
    assert [data[m.offset:m.offset + m.size] for m in members.values()] == [b'1', b'2', b'3', b'6']


@pytest.mark.parametrize('members, message', [
    ({'a.mp4': b'1'}, 'a: a video needs a .txt with a caption'), ({'a.txt': b'1'}, 'no videos in the shard'), ({}, ''),
    ({'a.mp4': b'1', 'a.txt': b' \n'}, 'a: a video needs'), ({'a.mp4': b'1', 'a.json': b'[]'}, 'a: a video needs'),
    ({'a.mp4': b'1', 'a.json': b'{"captions": [1]}'}, 'a: a video needs'),
    ({'a.mp4': b'1', 'a.json': b'{'}, 'a.json: not JSON'), ({'a.mp4': b'1', 'a.txt': b'\xff'}, 'must be UTF-8'),
    ({'a.mp4': b'1', 'a.json': b'{"caption": "a", "caption": "b"}'}, 'a.json: not JSON (duplicate key)'),
    ({'a.mp4': b'1', 'a.json': b'[' * 100000}, 'a.json: not JSON'),
    ({'a.mp4': b'1', 'a.txt': b'x' * 2**21}, 'too long'),
    ({'a.mp4': b'1', 'a.webm': b'1', 'a.txt': b'a'}, 'a.webm: another video of the same sample'),
    ({'../a.mp4': b'1', '../a.txt': b'a'}, '../a.mp4: the name points outside'), ({'/a.mp4': b'1'}, 'points outside'),
    ({'x' * 2000 + '.mp4': b'1'}, 'a name of more than 1024 characters'),
    ({'a.mp4': b'1', './a.mp4': b'1'}, 'a second file of this name'), ({'x' * 10**6: b''}, 'not an uncompressed tar'),
])
def test_what_is_refused(tmp_path, members, message):
    path = write_shard(tmp_path / 's.tar', members)
    with pytest.raises(AnnotationError) as error:
        tar_shards.read_shard(path, 0)
    text = str(error.value)
    assert text.startswith(f'{path}: ') and message in text and '\n' not in text and len(text) < 400 + len(path)


def test_times_are_checked(tmp_path):
    write_shard(tmp_path / 's.tar', {'a.mp4': b'1', 'a.json': b'{"caption": "c", "start": 2, "end": NaN}'})
    with pytest.raises(AnnotationError, match=r's\.tar: entry 0 \(s/a\): end must be a number of seconds'):
        build(tmp_path, 's.tar')


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path, kind):
    with tarfile.open(tmp_path / 's.tar', 'w') as archive:
        info = tarfile.TarInfo('a.mp4')
        info.type, info.linkname = kind, '/etc/passwd'
        archive.addfile(info)
    with pytest.raises(AnnotationError, match=r'a\.mp4: only regular files may be in a shard'):
        tar_shards.read_shard(str(tmp_path / 's.tar'), 0)


def test_archives_that_are_none(data, tmp_path):
    whole = (data / 's-0.tar').read_bytes()
    negative = tarfile.TarInfo('a.mp4')
    negative.size = -512
    header = bytearray(negative.tobuf(tarfile.GNU_FORMAT))
    for content in (b'', b'x' * 3000, whole[:len(whole) // 2], whole[:700], whole[:512], bytes(header) + bytes(2048)):
        (tmp_path / 's.tar').write_bytes(content)
        with pytest.raises(AnnotationError, match=r's\.tar: '):
            tar_shards.read_shard(str(tmp_path / 's.tar'), 0)
    with tarfile.open(tmp_path / 's.tar', 'w:gz') as archive:
        archive.add(data / 'v0.mp4', 'a.mp4')
    with pytest.raises(AnnotationError, match='not an uncompressed tar archive: compressed'):
        tar_shards.read_shard(str(tmp_path / 's.tar'), 0)
    for name in ('gone.tar', ''):
        with pytest.raises(AnnotationError, match=r"can't be read"):
            tar_shards.read_shard(str(tmp_path / name), 0)


def test_patterns(tmp_path):
    for i in range(12):
        (tmp_path / f's-{i:03}.tar').touch()
    expand = tar_shards.expand_shards
    names = [f'{tmp_path}/s-{i:03}.tar' for i in range(12)]
    assert expand('s-{008..011}.tar', str(tmp_path)) == names[8:]
    assert expand(['s-{000..001}.tar', 's-005.tar'], str(tmp_path)) == [*names[:2], names[5]]
    assert expand('s-*.tar', str(tmp_path)) == names and expand('{a}.tar') == ['{a}.tar']
    assert expand('{1..2}/{0..1}-x.tar'[6:]) == ['/0-x.tar', '/1-x.tar']
    for pattern, message in (('x*.tar', 'no such shards'), ([], 'no shards were named'), ('s{5..4}', 'no shards'),
                             ('{0..999999999999}', 'more than'), (['a/s.tar', 'b/s.tar'], 'two shards have this name')):
        with pytest.raises(AnnotationError, match=message):
            expand(pattern, str(tmp_path))
