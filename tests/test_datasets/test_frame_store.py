import io
import json
import os
import struct
import subprocess
import sys
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest

from vop_mm.datasets import DamagedStoreError, FrameStore, FrameStoreError, FrameStoreWriter, lmdb_check
from vop_mm.datasets import frame_store as module
from vop_mm.datasets.frame_store import clip_key, encode_frames

SETTINGS = dict(version=2, clip=dict(size=[4, 4], n=3), quality=None)


def clip(seed, frames=3, size=(8, 10)):
    return np.random.default_rng(seed).integers(0, 256, (frames, *size, 3), dtype=np.uint8)


def add(store, video, frames, start=None, end=None, quality=None):
    data, lengths = encode_frames(list(frames), quality)
    store.add(video, start, end, dict(
        source=[1, 2], shape=list(frames.shape), lengths=lengths, total_frames=9,
        frame_times=[i / 25 for i in range(len(frames))]), data)


def make(path, clips, quality=None, settings=SETTINGS):
    store = FrameStoreWriter(path, settings)
    for key, frames in clips.items():
        add(store, key[0], frames, *key[1:], quality=quality)
    store.set_finished(True)
    store.close()
    return FrameStore(path)


def test_frames_come_back_by_video_and_times(tmp_path):
    clips = {('a.mp4',): clip(0), ('a.mp4', 0, 2): clip(1), ('a.mp4', 2, None): clip(2, 5),
             ('b/männchen – 走.mp4', None, 7.5): clip(3, 1)}
    store = make(tmp_path / 's', clips)
    assert store.settings == SETTINGS
    for key, frames in clips.items():
        info = store.info(*key)
        np.testing.assert_array_equal(store.frames(info, range(len(frames))), frames)
        np.testing.assert_array_equal(store.frames(info, [len(frames) - 1, 0, 0]), frames[[-1, 0, 0]])
    assert store.info('a.mp4', 0.0, 2.0) == store.info('a.mp4', 0, 2)
    assert store.info('a.mp4', 0, 3) is None and store.info('c.mp4') is None


def test_frames_are_the_callers_to_change(tmp_path):
    store = make(tmp_path / 's', {('a.mp4',): clip(0)})
    info = store.info('a.mp4')
    store.frames(info, [0, 1])[:] = 0
    np.testing.assert_array_equal(store.frames(info, [0, 1, 2]), clip(0))


def test_jpeg_is_close_and_small(tmp_path):
    ramp = np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(1, 64, 64, 3).repeat(3, 0)
    store = make(tmp_path / 's', {('a.mp4',): ramp}, quality=95)
    info = store.info('a.mp4')
    assert abs(store.frames(info, [2, 0]).astype(int) - ramp[:2]).mean() < 1.5
    assert sum(info['lengths']) < ramp.nbytes / 2


def test_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, '_FIRST_SIZE', 1 << 16)
    clips = {(f'{i}.mp4',): clip(i, size=(64, 64)) for i in range(20)}
    store = make(tmp_path / 's', clips)
    for key, frames in clips.items():
        np.testing.assert_array_equal(store.frames(store.info(*key), range(3)), frames)


def test_forked_processes_read_what_the_parent_has_open(tmp_path):
    store = make(tmp_path / 's', {(f'{i}.mp4',): clip(i) for i in range(5)})
    expected = [store.frames(store.info(f'{i}.mp4'), range(3)) for i in range(5)]
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            same = all((store.frames(store.info(f'{i}.mp4'), range(3)) == expected[i]).all() for i in range(5))
            os._exit(0 if same else 1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    np.testing.assert_array_equal(store.frames(store.info('4.mp4'), range(3)), expected[4])


def test_killed_at_any_moment_it_holds_whole_clips(tmp_path):
    code = f"""
import sys
sys.path.insert(0, '.')
from tests.test_datasets.test_frame_store import *
store = FrameStoreWriter({str(tmp_path / 's')!r}, SETTINGS)
for i in range(10**6):
    add(store, str(i), clip(i, size=(32, 32)))
    print(i, flush=True)
"""
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    while process.stdout.readline() != '30\n':
        assert process.poll() is None
    process.kill()
    process.communicate()
    with pytest.raises(FrameStoreError, match='not finished'):
        FrameStore(tmp_path / 's')
    store = FrameStoreWriter(tmp_path / 's', SETTINGS)
    store.set_finished(True)
    store.close()
    store = FrameStore(tmp_path / 's')
    there = 0
    while store.info(str(there)):
        np.testing.assert_array_equal(store.frames(store.info(str(there)), range(3)), clip(there, size=(32, 32)))
        there += 1
    assert there > 30


@pytest.mark.parametrize('change, says', [
    (dict(quality=90), 'quality is None there, 90 here'),
    (dict(clip=dict(size=[4, 4], n=4)), 'n is 3 there, 4 here'),
    (dict(clip=dict(size=[4, 4], n=3, m=1)), 'm is None there, 1 here'),
    (dict(clip=dict(size=[4, 5])), r'size is \[4, 4\] there, \[4, 5\] here')])
def test_refuses_other_settings(tmp_path, change, says):
    make(tmp_path / 's', {('a.mp4',): clip(0)})
    with pytest.raises(FrameStoreError, match=f'made with other settings: {says}'):
        FrameStoreWriter(tmp_path / 's', {**SETTINGS, **change})


def test_refuses_what_is_no_store(tmp_path):
    with pytest.raises(FrameStoreError, match='no frame store there'):
        FrameStore(tmp_path)
    (tmp_path / 'data.mdb').write_bytes(b'garbage' * 5000)
    with pytest.raises(FrameStoreError, match='not an LMDB file'):
        FrameStore(tmp_path)
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'thesis.txt').write_text('mine')
    with pytest.raises(FrameStoreError, match='neither empty nor'):
        FrameStoreWriter(tmp_path / 'thesis', SETTINGS)


# -- damage -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def content(tmp_path_factory):
    """The file of a store of raw frames, and of one of JPEGs."""
    folder = tmp_path_factory.mktemp('stores')
    found = []
    for quality in (None, 90):
        path = folder / str(quality)
        make(path, {(f'{i}.mp4',): clip(i, 4, (16, 20 + i)) for i in range(30)}, quality)
        found.append((path / 'data.mdb').read_bytes())
    return found


def damaged(path, data) -> str:
    path.mkdir(exist_ok=True)
    (path / 'data.mdb').write_bytes(data)
    return str(path)


def read_all(path) -> int:
    """The status of a process that reads all of a store: 0 if it can, 2 where one line says why it can't."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store = FrameStore(path)
            for i in range(30):
                info = store.info(f'{i}.mp4')
                if info is None:  # as ReadClip says
                    raise FrameStoreError(path, 'it is not in it')
                store.frames(info, range(4))
            status = 0
        except FrameStoreError as e:
            status = 2 if str(e).startswith(str(path)) and str(e).isprintable() else 3
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize('share', [0, 0.001, 0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_store_that_was_cut_off_is_named(content, tmp_path, share):
    for name, data in zip('st', content):
        path = damaged(tmp_path / name, data[:int(len(data) * share)])
        with pytest.raises(DamagedStoreError, match=f'/{name}: cut off: .*cache_frames.py again'):
            FrameStore(path)
        with pytest.raises(DamagedStoreError, match=f'/{name}: cut off: '):
            FrameStoreWriter(path, SETTINGS)
        assert not (tmp_path / name / 'lock.mdb').exists()
        store = FrameStoreWriter(path, SETTINGS, anew=True)
        assert store.info('0.mp4') is None
        store.close()


def test_what_was_changed_is_noticed_or_does_not_matter(content, tmp_path):
    """No process dies, and no frame differs."""
    rng, said = np.random.default_rng(0), []
    for data in content:
        for _ in range(60):
            changed = bytearray(data)
            for _ in range(rng.integers(1, 4)):
                page = 4096 * rng.integers(len(data) // 4096)
                changed[page + rng.integers(40 if rng.random() < 0.5 else 4096)] ^= 1 << rng.integers(8)
            said.append(read_all(damaged(tmp_path / 's', changed)))
    assert set(said) == {0, 2}, said


@pytest.fixture(scope='module')
def used(tmp_path_factory):
    """The file of a store in which clips were replaced: pages of it are free, more of them than a page can list."""
    path = tmp_path_factory.mktemp('used') / 's'
    make(path, {(f'{i}.mp4',): clip(i, 4, (16, 20 + i)) for i in range(30)})
    writer = FrameStoreWriter(path, SETTINGS)
    for frames in (clip(0, 4, (900, 900)), clip(0, 4, (8, 8))):
        add(writer, 'large.mp4', frames)
    writer.close()
    return (path / 'data.mdb').read_bytes()


def parts_of(data: bytes) -> tuple[list[int], list[int]]:
    """Where the pages of the clips' tree begin, and where lists of free pages do that have pages of their own."""
    with io.BytesIO(data) as file:
        free, main, last = lmdb_check._newest_meta(file, len(data))
        trees = [lmdb_check._Tree(file, free[0], last, writing=True) for _ in range(2)]
        for tree, database in zip(trees, (main, free)):
            assert list(tree.values(database, whole=True))
    assert trees[1].spans
    return [page * free[0] for page in trees[0].nodes], [page * free[0] + 16 for page, _ in trees[1].spans]


@pytest.mark.parametrize('place, number', [(0, 2**63), (0, 10**6), (0, 5000), (1, 2), (1, 2**50), (3, 0)])
def test_a_list_of_free_pages_that_lies_is_noticed_before_anything_is_written(used, tmp_path, place, number):
    """Pages of other clips would be written over."""
    for start in parts_of(used)[1]:
        changed = bytearray(used)
        struct.pack_into('<Q', changed, start + 8 * place, number)
        with pytest.raises(DamagedStoreError, match='free pages|names page|used twice'):
            FrameStoreWriter(damaged(tmp_path / 's', changed), SETTINGS)


@pytest.mark.parametrize('what', ['a node before the nodes', 'nodes that overlap', 'a key too long', 'the end of room'])
def test_a_page_whose_nodes_can_not_be_moved_is_noticed(used, tmp_path, what):
    """LMDB moves memory by differences of these numbers when a clip is replaced."""
    for page in parts_of(used)[0]:
        changed = bytearray(used)
        lower, upper, *starts = struct.unpack_from('<4H', used, page + 12)
        if what == 'a node before the nodes':
            struct.pack_into('<H', changed, page + 16, upper - 2)
        elif what == 'nodes that overlap':
            struct.pack_into('<H', changed, page + 16, starts[1])
        elif what == 'a key too long':
            struct.pack_into('<H', changed, page + starts[0] + 6, 512)
        else:
            struct.pack_into('<H', changed, page + 14, upper + 2)
        with pytest.raises(DamagedStoreError, match=f'page {page // 4096} is damaged'):
            FrameStoreWriter(damaged(tmp_path / 's', changed), SETTINGS)


def test_what_lmdb_itself_notices_is_damage_too(tmp_path, monkeypatch):
    make(tmp_path / 's', {('a.mp4',): clip(0)}).info('a.mp4')
    writer = FrameStoreWriter(tmp_path / 's', SETTINGS)

    def fails(*args, **kwargs):
        raise lmdb.CorruptedError('mdb_put: MDB_CORRUPTED: Located page was wrong type')
    monkeypatch.setattr(writer, '_env', SimpleNamespace(begin=fails))
    with pytest.raises(DamagedStoreError, match='/s: mdb_put: MDB_CORRUPTED: .*; run tools/data/cache_frames.py again'):
        writer.set_finished(True)


def test_a_flipped_bit_in_frames_names_store_and_clip(content, tmp_path):
    for data, frames in zip(content, (clip(7, 4, (16, 27)).tobytes(), b'\xff\xd8\xff')):
        place = data.index(frames) + 100
        changed = bytearray(data)
        changed[place] ^= 4
        store = FrameStore(damaged(tmp_path / 's', changed))
        broken = []
        for i in range(30):
            if any(fails(store, i, position) for position in range(4)):
                broken.append(i)
        assert len(broken) == 1
        with pytest.raises(DamagedStoreError, match=f'{tmp_path}/s: the frames of {broken[0]}.mp4 are damaged'):
            store.frames(store.info(f'{broken[0]}.mp4'), range(4))
        other = next(p for p in range(4) if not fails(store, broken[0], p))
        assert fails(store, broken[0], 0) != fails(store, broken[0], other)  # the other frames are read


def fails(store, i, position) -> bool:
    try:
        store.frames(store.info(f'{i}.mp4'), [position])
    except DamagedStoreError:
        return True
    return False


def test_stores_of_older_versions_have_no_checksums_and_are_read(tmp_path):
    store = make(tmp_path / 's', {('a.mp4',): clip(0)})
    env = lmdb.open(str(tmp_path / 's'))
    with env.begin(write=True) as txn:
        assert txn.delete(b'c' + clip_key('a.mp4'))
    env.close()
    np.testing.assert_array_equal(store.frames(store.info('a.mp4'), range(3)), clip(0))


GOOD = dict(source=[1, 2], shape=[3, 8, 10, 3], lengths=None, video='a.mp4', start=None, end=None, total_frames=3,
            frame_times=[0, 1, 2.])


@pytest.mark.parametrize('value', [
    b'', b'{', b'[]', b'1', b'\xff\xfe', b'null', b'[' * 100_000, b'{"source": [1, 2]}',
    *(json.dumps({**GOOD, **change}).encode() for change in [
        dict(shape=[3, 8, 10]), dict(shape='abcd'), dict(shape=[3, 8, 10, 3.]), dict(shape=[-3, 8, 10, -3]),
        dict(shape=[3, 10**9, 10**9, 3]), dict(shape=[10**400, 1, 1, 3]), dict(shape=None), dict(lengths=[720]),
        dict(lengths=['a', 'b', 'c']), dict(lengths=[720, 0.5, 0]), dict(lengths=[1, 2, 10**18]), dict(lengths={}),
        dict(source=None), dict(source=['a', 'b']), dict(unreadable=3), dict(video='b.mp4'), dict(video=[]),
        dict(start=10**400), dict(frame_times=['x']), dict(frame_times=[0, 1, 1e999]),
        dict(total_frames=None), dict(lengths=[240, 240, 240])])])
def test_values_of_other_kinds(tmp_path, value):
    """As somebody else may have written them, with no checksum."""
    store = make(tmp_path / 's', {('a.mp4',): clip(0)})
    env = lmdb.open(str(tmp_path / 's'))
    with env.begin(write=True) as txn:
        txn.delete(b'c' + clip_key('a.mp4'))
        txn.put(b'i' + clip_key('a.mp4'), value)
    env.close()
    with pytest.raises(DamagedStoreError, match=f'{tmp_path}/s: .*a.mp4.* damaged') as error:
        store.frames(store.info('a.mp4'), [0])
    assert str(error.value).isprintable() and len(str(error.value)) < 400


@pytest.mark.parametrize('value', [b'', b'[]', b'{"version"', b'3', b'\xff'])
def test_settings_of_other_kinds(tmp_path, value):
    make(tmp_path / 's', {('a.mp4',): clip(0)})
    env = lmdb.open(str(tmp_path / 's'))
    with env.begin(write=True) as txn:
        txn.put(b'settings', value)
    env.close()
    for use in (FrameStore, lambda path: FrameStoreWriter(path, SETTINGS)):
        with pytest.raises(FrameStoreError, match=f'{tmp_path}/s: its settings are damaged'):
            use(tmp_path / 's')


def test_jpegs_of_another_size(tmp_path):
    """A few bytes may say that they are many pixels."""
    store = FrameStoreWriter(tmp_path / 's', SETTINGS)
    data, lengths = encode_frames(list(clip(0, size=(400, 400))), 90)
    store.add('a.mp4', None, None, dict(
        source=[1, 2], shape=[3, 8, 10, 3], lengths=lengths, total_frames=3, frame_times=[0, 1, 2]), data)
    store.set_finished(True)
    store.close()
    store = FrameStore(tmp_path / 's')
    with pytest.raises(DamagedStoreError, match='400 x 400 pixels'):
        store.frames(store.info('a.mp4'), [0])


@pytest.mark.parametrize('name', ['data.mdb', 'lock.mdb'])
def test_nothing_is_written_through_a_link(tmp_path, name):
    make(tmp_path / 's', {('a.mp4',): clip(0)})
    (tmp_path / 's' / name).unlink()
    (tmp_path / 'mine').write_text('mine')
    (tmp_path / 's' / name).symlink_to(tmp_path / 'mine')
    for use in (FrameStore, lambda path: FrameStoreWriter(path, SETTINGS)):
        with pytest.raises(FrameStoreError, match=f'{tmp_path}/s: {name} is a symbolic link'):
            use(tmp_path / 's')
    assert (tmp_path / 'mine').read_text() == 'mine'


def test_a_page_that_two_others_name_is_damage(tmp_path):
    """Each level of such pages would double what is to be read."""
    make(tmp_path / 's', {(f'{i}.mp4',): clip(0) for i in range(60)})
    path = tmp_path / 's' / 'data.mdb'
    content, found = bytearray(path.read_bytes()), 0
    for page in range(2 * 4096, len(content), 4096):
        number, _, flags, lower, _ = struct.unpack_from('<Q4H', content, page)
        if number * 4096 == page and flags == 1 and lower >= 20:  # a branch
            first, second = struct.unpack_from('<2H', content, page + 16)
            content[page + second:page + second + 6] = content[page + first:page + first + 6]
            found += 1
    path.write_bytes(content)
    assert found
    for use in (FrameStore, lambda path: FrameStoreWriter(path, SETTINGS)):
        with pytest.raises(DamagedStoreError, match='is used twice'):
            use(tmp_path / 's')
