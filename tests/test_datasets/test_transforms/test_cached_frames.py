"""Frames from a store are the frames that the pipeline would have decoded."""
import os
import signal

import numpy as np
import pytest

from tests.videos import broken_videos, encode_video, read_index
from vop_mm.datasets import FrameStoreError, FrameStoreWriter, VideoDecodeError
from vop_mm.datasets.randomness import fixed_randomness
from vop_mm.datasets.transforms import FramesToStore, LoadCachedFrames, split_pipeline
from vop_mm.registry import TRANSFORMS

OPEN, DECODE = dict(type='OpenVideo'), dict(type='mmaction.DecordDecode')
CROP, FLIP = dict(type='mmaction.RandomResizedCrop', area_range=(0.5, 1.0)), dict(type='mmaction.Flip', flip_ratio=0.5)


def front(num_frames=12, mode='middle', *more):
    return [OPEN, dict(type='SampleSegments', num_frames=num_frames, mode=mode), DECODE, *more]


def item(path, **times):
    return dict(filename=str(path), video=os.path.basename(path), **times)


def run(pipeline, item, seed=0):
    results = dict(item)
    with fixed_randomness(seed):
        for step in pipeline:
            results = (TRANSFORMS.build(step) if isinstance(step, dict) else step)(results)
    return results


def store(path, pipeline, items, **options):
    """A store of these items, and the pipeline that reads it."""
    decode = FramesToStore(pipeline, **options)
    writer = FrameStoreWriter(path, decode.settings)
    for one in items:
        writer.add(one['video'], one.get('start'), one.get('end'), *decode(one))
    writer.set_finished(True)
    writer.close()
    head, rest = split_pipeline(pipeline)
    return [LoadCachedFrames(str(path), head), *rest]


@pytest.mark.parametrize('pipeline', [
    front(), front(12, 'middle', dict(type='ResizeFrames', size=32), dict(type='mmaction.CenterCrop', crop_size=30)),
    front(12, 'middle', CROP, dict(type='ResizeFrames', size=(24, 24)), FLIP),
    [OPEN, dict(type='SampleSegments', num_frames=12, pad=None), DECODE, FLIP],
    [dict(type='IsolatedDecode', timeout=30, transforms=[*front(), CROP]), dict(type='ResizeFrames', size=24), FLIP]])
def test_equal_what_is_decoded(tmp_path, pipeline):
    items = [item(encode_video(tmp_path / 'a.mp4', 60)), item(encode_video(tmp_path / 'short.mp4', 5))]
    stored = store(tmp_path / 's', pipeline, items)
    for seed in range(4):
        for one in items:
            expected, found = run(pipeline, one, seed), run(stored, one, seed)
            assert len(found['imgs']) == len(expected['imgs'])
            for a, b in zip(found['imgs'], expected['imgs']):
                np.testing.assert_array_equal(a, b)
            for key in ('frame_inds', 'num_frames', 'total_frames', 'avg_fps', 'clip_start', 'clip_end', 'img_shape',
                        'modality', 'clip_len', 'num_clips'):
                np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def test_two_clips_of_one_video(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 100, fps=25)
    items = [item(path, start=0., end=1.), item(path, start=1., end=3.), item(path, start=2), item(path)]
    stored = store(tmp_path / 's', front(), items)
    for one, (first, last) in zip(items, [(0, 24), (25, 74), (50, 99), (0, 99)]):
        indices = [read_index(frame) for frame in run(stored, one)['imgs']]
        assert indices == [read_index(frame) for frame in run(front(), one)['imgs']]
        assert first <= indices[0] < indices[-1] <= last and indices[-1] - indices[0] > 0.8 * (last - first)


def test_random_frames_come_from_their_segment(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 120)
    stored = store(tmp_path / 's', front(6, 'random'), [item(path)], per_segment=4)
    drawn = []
    for seed in range(60):
        found = run(stored, item(path), seed)
        indices = [read_index(frame) for frame in found['imgs']]
        assert indices == list(found['frame_inds']) and [i // 20 for i in indices] == list(range(6))
        drawn.append(indices)
    # 24 equal parts of 5 frames, the middle of each
    assert {i for indices in drawn for i in indices} == set(range(2, 120, 5))
    assert drawn[0] == [read_index(frame) for frame in run(stored, item(path), 0)['imgs']]


def test_large_frames_are_scaled_down_before_random_crops_alone(tmp_path):
    large, small = (item(encode_video(tmp_path / f'{h}.mp4', 12, size=(h, 2 * h))) for h in (96, 48))
    shapes = {}
    for name, step in dict(random=CROP, fixed=dict(type='ResizeFrames', size=80)).items():
        pipeline = front(4, 'middle', step)
        stored = store(tmp_path / name, pipeline, [large, small], short_side=64)[:1]
        shapes[name] = [run(stored, one)['imgs'][0].shape for one in (large, small)]
    assert shapes == dict(random=[(64, 128, 3), (48, 96, 3)], fixed=[(80, 160, 3), (80, 160, 3)])
    stored = store(tmp_path / 'kept', front(4, 'middle', CROP), [large], short_side=0)[:1]
    assert run(stored, large)['img_shape'] == (96, 192)


def test_videos_that_can_not_be_decoded(tmp_path):
    items = [item(path) for path in broken_videos(tmp_path).values()]
    stored = store(tmp_path / 's', front(), items)
    for one in items:
        reasons = []
        for pipeline in (front(), stored):
            with pytest.raises(VideoDecodeError) as error:
                run(pipeline, one)
            reasons.append((error.value.path, error.value.reason))
        assert reasons[0] == reasons[1]


@TRANSFORMS.register_module(force=True)
class DecodeOrCrash(TRANSFORMS.get('mmaction.DecordDecode')):

    def transform(self, results):
        if results['video'] == 'crash.mp4':
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().transform(results)


def test_a_video_that_crashes_the_decoder(tmp_path):
    items = [item(encode_video(tmp_path / name, 20)) for name in ('crash.mp4', 'good.mp4')]
    stored = store(tmp_path / 's', [*front()[:2], dict(type='DecodeOrCrash')], items)
    with pytest.raises(VideoDecodeError, match='crash.mp4: the decoder died: SIGSEGV'):
        run(stored, items[0])
    assert len(run(stored, items[1])['imgs']) == 12


def test_a_file_that_changed_is_refused_and_one_that_is_gone_is_not_needed(tmp_path):
    one = item(encode_video(tmp_path / 'a.mp4', 30))
    stored = store(tmp_path / 's', front(), [one])
    expected = run(stored, one)['imgs']
    encode_video(tmp_path / 'a.mp4', 30, first=100)
    os.utime(tmp_path / 'a.mp4', (1, 1))
    with pytest.raises(FrameStoreError, match='a.mp4 has changed'):
        run(stored, one)
    (tmp_path / 'a.mp4').unlink()
    np.testing.assert_array_equal(run(stored, one)['imgs'], expected)


def test_a_clip_that_is_not_there_is_named(tmp_path):
    one = item(encode_video(tmp_path / 'a.mp4', 30))
    stored = store(tmp_path / 's', front(), [one])
    with pytest.raises(FrameStoreError, match='a.mp4, start 0 s, end 2.5 s is not in it'):
        run(stored, dict(one, start=0, end=2.5))


@pytest.mark.parametrize('asked, says', [
    (front(8), 'SampleSegments.num_frames is 12 there, 8 here'),
    (front(12, 'random'), 'SampleSegments.mode is middle there, random here'),
    (front(12, 'middle', dict(type='ResizeFrames', size=32)), 'DecordDecode there, .* - ResizeFrames here')
])
def test_other_settings_are_refused(tmp_path, asked, says):
    store(tmp_path / 's', front(), [])
    with pytest.raises(FrameStoreError, match=says):
        LoadCachedFrames(str(tmp_path / 's'), asked)
    # the same in other words
    LoadCachedFrames(str(tmp_path / 's'), [dict(OPEN, num_threads=2), dict(type='SampleSegments', pad=None), DECODE])


def test_a_pipeline_of_which_nothing_can_be_stored_is_named():
    with pytest.raises(ValueError, match='this one is LoadImageFromFile - ResizeFrames'):
        split_pipeline([dict(type='mmcv.LoadImageFromFile'), dict(type='ResizeFrames')])
