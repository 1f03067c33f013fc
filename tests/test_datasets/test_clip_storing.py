"""Frames from a store are the frames that the pipeline would have read."""
import os
import signal

import numpy as np
import pytest

from tests.videos import broken_videos, encode_video, read_index
from vop_mm.datasets import FrameStoreError, FrameStoreWriter, VideoDecodeError
from vop_mm.datasets.clip_storing import ClipStoring
from vop_mm.datasets.decoding import PyAVReader
from vop_mm.datasets.randomness import fixed_randomness
from vop_mm.datasets.transforms import ReadClip
from vop_mm.registry import READERS, TRANSFORMS

CROP, FLIP = dict(type='mmaction.RandomResizedCrop', area_range=(0.5, 1.0)), dict(type='mmaction.Flip', flip_ratio=0.5)
END = [dict(type='TokenizeText'), dict(type='PackVideoText')]


def reading(*more, **args):
    return [dict(type='ReadClip', **args), *more]


def item(path, **times):
    return dict(filename=str(path), video=os.path.basename(path), **times)


def run(pipeline, item, seed=0):
    results = dict(item)
    with fixed_randomness(seed):
        for step in pipeline:
            results = TRANSFORMS.build(step)(results)
    return results


def store(path, pipeline, items, **options):
    """A store of these items, and the pipeline that reads it."""
    storing = ClipStoring([*pipeline, *END], **options)
    writer = FrameStoreWriter(path, storing.settings)
    for one in items:
        writer.add(one['video'], one.get('start'), one.get('end'), *storing(one))
    writer.set_finished(True)
    writer.close()
    return [dict(pipeline[0], store=str(path)), *pipeline[1:]]


@pytest.mark.parametrize('pipeline', [
    reading(), reading(dict(type='mmaction.CenterCrop', crop_size=30), size=32), reading(sampling='time'),
    reading(CROP, dict(type='ResizeFrames', size=(24, 24)), FLIP), reading(FLIP, pad=None)])
def test_equal_what_is_decoded(tmp_path, pipeline):
    items = [item(encode_video(tmp_path / 'a.mp4', 60)), item(encode_video(tmp_path / 'short.mp4', 5))]
    stored = store(tmp_path / 's', pipeline, items)
    for seed in range(4):
        for one in items:
            expected, found = run(pipeline, one, seed), run(stored, one, seed)
            assert len(found['imgs']) == len(expected['imgs'])
            for a, b in zip(found['imgs'], expected['imgs'], strict=True):
                np.testing.assert_array_equal(a, b)
            for key in ('frame_times', 'num_frames', 'total_frames', 'img_shape', 'modality', 'clip_len', 'num_clips'):
                np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def test_two_clips_of_one_video(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 100, fps=25)
    items = [item(path, start=0., end=1.), item(path, start=1., end=3.), item(path, start=2), item(path)]
    stored = store(tmp_path / 's', reading(), items)
    for one, (first, last) in zip(items, [(0, 24), (25, 74), (50, 99), (0, 99)]):
        indices = [read_index(frame) for frame in run(stored, one)['imgs']]
        assert indices == [read_index(frame) for frame in run(reading(), one)['imgs']]
        assert first <= indices[0] < indices[-1] <= last and indices[-1] - indices[0] > 0.8 * (last - first)


def test_random_frames_come_from_their_segment(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 120)
    stored = store(tmp_path / 's', reading(num_frames=6, mode='random'), [item(path)], per_segment=4)
    drawn = []
    for seed in range(60):
        found = run(stored, item(path), seed)
        indices = [read_index(frame) for frame in found['imgs']]
        np.testing.assert_allclose(found['frame_times'], np.array(indices) / 25, atol=1e-3)
        assert [i // 20 for i in indices] == list(range(6))
        drawn.append(indices)
    # 24 equal parts of 5 frames, the middle of each
    assert {i for indices in drawn for i in indices} == set(range(2, 120, 5))
    assert drawn[0] == [read_index(frame) for frame in run(stored, item(path), 0)['imgs']]


def test_large_frames_that_are_not_resized_are_scaled_down(tmp_path):
    large, small = (item(encode_video(tmp_path / f'{h}.mp4', 12, size=(h, 2 * h))) for h in (96, 48))
    shapes = {}
    for name, size in dict(random=None, fixed=80).items():
        stored = store(tmp_path / name, reading(CROP, num_frames=4, size=size), [large, small], short_side=64)[:1]
        shapes[name] = [run(stored, one)['imgs'][0].shape for one in (large, small)]
    assert shapes == dict(random=[(64, 128, 3), (48, 96, 3)], fixed=[(80, 160, 3), (80, 160, 3)])
    stored = store(tmp_path / 'kept', reading(CROP, num_frames=4), [large], short_side=0)[:1]
    assert run(stored, large)['img_shape'] == (96, 192)


def test_videos_that_can_not_be_decoded(tmp_path):
    items = [item(path) for path in broken_videos(tmp_path).values()]
    stored = store(tmp_path / 's', reading(), items)
    for one in items:
        reasons = []
        for pipeline in (reading(), stored):
            with pytest.raises(VideoDecodeError) as error:
                run(pipeline, one)
            reasons.append((error.value.path, error.value.reason))
        assert reasons[0] == reasons[1]


@READERS.register_module(force=True)
class CrashingReader(PyAVReader):

    def __init__(self, path, *args) -> None:
        if path.endswith('crash.mp4'):
            os.kill(os.getpid(), signal.SIGSEGV)
        super().__init__(path, *args)


def test_a_video_that_crashes_the_decoder(tmp_path):
    items = [item(encode_video(tmp_path / name, 20)) for name in ('crash.mp4', 'good.mp4')]
    stored = store(tmp_path / 's', reading(reader='CrashingReader'), items)
    with pytest.raises(VideoDecodeError, match='crash.mp4: the decoder crashed: SIGSEGV'):
        run(stored, items[0])
    assert len(run(stored, items[1])['imgs']) == 12


def test_a_file_that_changed_is_refused_and_one_that_is_gone_is_not_needed(tmp_path):
    one = item(encode_video(tmp_path / 'a.mp4', 30))
    stored = store(tmp_path / 's', reading(), [one])
    expected = run(stored, one)['imgs']
    encode_video(tmp_path / 'a.mp4', 30, first=100)
    os.utime(tmp_path / 'a.mp4', (1, 1))
    with pytest.raises(FrameStoreError, match='a.mp4 has changed'):
        run(stored, one)
    (tmp_path / 'a.mp4').unlink()
    np.testing.assert_array_equal(run(stored, one)['imgs'], expected)


def test_a_clip_that_is_not_there_is_named(tmp_path):
    one = item(encode_video(tmp_path / 'a.mp4', 30))
    stored = store(tmp_path / 's', reading(), [one])
    with pytest.raises(FrameStoreError, match='a.mp4, start 0 s, end 2.5 s is not in it'):
        run(stored, dict(one, start=0, end=2.5))


@pytest.mark.parametrize('asked, says', [
    (dict(num_frames=8), 'num_frames is 12 there, 8 here'),
    (dict(mode='random'), "mode is 'middle' there, 'random' here"),
    (dict(size=32), 'size is None there, 32 here'), (dict(sampling='time'), "sampling is 'number' there, 'time' here"),
    (dict(reader='DecordReader'), "reader is 'PyAVReader' there, 'DecordReader' here")])
def test_other_settings_are_refused(tmp_path, asked, says):
    store(tmp_path / 's', reading(), [])
    with pytest.raises(FrameStoreError, match=says):
        ReadClip(store=str(tmp_path / 's'), **asked)
    ReadClip(store=str(tmp_path / 's'), pad=None, num_threads=2, timeout=3)  # which change no frame


def test_a_store_of_an_older_version_is_refused(tmp_path):
    writer = FrameStoreWriter(tmp_path / 's', dict(version=1, pipeline=[dict(type='OpenVideo')]))
    writer.set_finished(True)
    writer.close()
    with pytest.raises(FrameStoreError, match='version is 1 there, 2 here'):
        ReadClip(store=str(tmp_path / 's'))
