import os
import subprocess
import sys

import numpy as np
import pytest

from vop_mm.datasets import FrameStore, FrameStoreError, FrameStoreWriter
from vop_mm.datasets import frame_store as module
from vop_mm.datasets.frame_store import encode_frames

SETTINGS = dict(version=1, pipeline=[dict(type='A', size=[4, 4]), dict(type='B', n=3)], quality=None)


def clip(seed, frames=3, size=(8, 10)):
    return np.random.default_rng(seed).integers(0, 256, (frames, *size, 3), dtype=np.uint8)


def add(store, video, frames, start=None, end=None, quality=None):
    data, lengths = encode_frames(list(frames), quality)
    store.add(video, start, end, dict(source=[1, 2], shape=list(frames.shape), lengths=lengths), data)


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
    (dict(pipeline=[dict(type='A', size=[4, 4]), dict(type='B', n=4)]), 'B.n is 3 there, 4 here'),
    (dict(pipeline=[dict(type='A', size=[4, 4]), dict(type='B', n=3, m=1)]), 'B.m is None there, 1 here'),
    (dict(pipeline=[dict(type='A', size=[4, 4])]), 'pipeline is A - B there, A here')])
def test_refuses_other_settings(tmp_path, change, says):
    make(tmp_path / 's', {('a.mp4',): clip(0)})
    with pytest.raises(FrameStoreError, match=f'made with other settings: {says}'):
        FrameStoreWriter(tmp_path / 's', {**SETTINGS, **change})


def test_refuses_what_is_no_store(tmp_path):
    with pytest.raises(FrameStoreError, match='no frames are stored there'):
        FrameStore(tmp_path)
    (tmp_path / 'data.mdb').write_bytes(b'garbage' * 5000)
    with pytest.raises(FrameStoreError, match='not an LMDB file'):
        FrameStore(tmp_path)
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'thesis.txt').write_text('mine')
    with pytest.raises(FrameStoreError, match='holds something else'):
        FrameStoreWriter(tmp_path / 'thesis', SETTINGS)
