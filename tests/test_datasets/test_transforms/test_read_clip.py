"""Clips of real files: which frames they are, and an error where the child dies or hangs."""
import copy
import gc
import json
import os
import pickle
import signal
import time

import cloudpickle
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.test_datasets.test_decoding.test_process import children
from tests.videos import broken_videos, encode_video, read_index
from vop_mm.datasets import VideoDecodeError, VideoTextDataset
from vop_mm.datasets.decoding import DecodeProcess, PyAVReader
from vop_mm.datasets.randomness import fixed_randomness
from vop_mm.datasets.transforms import ReadClip, clip_moments, clip_range, sample_frames, sample_moments
from vop_mm.registry import READERS, TOKENIZERS


@TOKENIZERS.register_module(force=True)
class OneToken:
    """Every caption is one token."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.ones(len(texts), 1, dtype=torch.int64)


@READERS.register_module(force=True)
class MisbehavingReader(PyAVReader):
    """Does what the file's name says."""

    def __init__(self, path, *args) -> None:
        name = os.path.basename(path)
        if name.startswith('crash'):
            os.kill(os.getpid(), signal.SIGSEGV)
        if name.startswith('hang'):
            time.sleep(600)
        if name.startswith('bug'):
            raise KeyError('a mistake in a reader')
        super().__init__(path, *args)


def indices(results) -> list[int]:
    return [read_index(frame) for frame in results['imgs']]


def read(path, **args) -> dict:
    clip = {key: args.pop(key) for key in ('start', 'end') if key in args}
    return ReadClip(**args)(dict(filename=str(path), **clip))


@pytest.mark.parametrize('name, codec', [('a.mp4', 'h264'), ('a.mkv', 'h264'), ('a.webm', 'vp9'),
                                         ('männchen läuft – 走.mp4', 'h264'), ('no_extension', 'h264')])
def test_frames_are_the_published_ones(tmp_path, name, codec):
    path = encode_video(tmp_path / (name if '.' in name else 'b.mp4'), 60, codec=codec)
    if '.' not in name:
        os.rename(path, tmp_path / name)
    found = read(tmp_path / name)
    assert indices(found) == sample_frames(60, 12).tolist()
    np.testing.assert_allclose(found['frame_times'], sample_frames(60, 12) / 25, atol=1e-3)
    assert (found['num_frames'], found['total_frames'], found['modality']) == (12, 60, 'RGB')
    assert found['img_shape'] == found['original_shape'] == (48, 80)


@pytest.mark.parametrize('count', [1, 2, 3, 5])
def test_short_videos_repeat_the_last_frame_or_stay_short(tmp_path, count):
    path = encode_video(tmp_path / 'a.mp4', count)
    found = read(path, num_frames=6)
    assert indices(found) == [*range(count), *[count - 1] * (6 - count)] and found['num_frames'] == count
    assert len({id(frame) for frame in found['imgs']}) == 6 and len(found['frame_times']) == found['clip_len'] == 6
    found = read(path, num_frames=6, pad=None)
    assert indices(found) == list(range(count)) and found['num_frames'] == found['clip_len'] == count


def irregular_times(count: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.2, 0.5], count - 1))])


@pytest.mark.parametrize('start, end', [(0, 2), (1.2, 3.7), (2.5, None), (None, 1.0), (3, 1000), (None, None)])
@pytest.mark.parametrize('offset', [0, 0.5])
@pytest.mark.parametrize('sampling', ['number', 'time'])
def test_a_clip_with_a_variable_frame_rate(tmp_path, start, end, offset, sampling):
    """A window that was indexed alone gives what the whole file's times say."""
    times = irregular_times(60)
    path = encode_video(tmp_path / 'vfr.mp4', 60, times=times + offset)
    stop = PyAVReader(path).duration  # no file says how long its last frame is shown
    for num in (3, 12):
        found = read(path, start=start, end=end, num_frames=num, sampling=sampling, pad=None)
        if sampling == 'number':
            first, behind = clip_range(times, stop, start, end)
            expected = first + sample_frames(behind - first, num)
        else:
            first, shown, gone = clip_moments(times, stop, start, end)
            expected = first + sample_moments(shown, gone, num)
        assert indices(found) == expected.tolist()
        np.testing.assert_allclose(found['frame_times'], times[expected], atol=2e-3)


def test_a_slide_that_stands(tmp_path):
    """One frame for 44 s of 60, in 12 frames and in a window of which it is most."""
    path = encode_video(tmp_path / 'a.mp4', 49, times=np.concatenate([[0.], 44 + np.arange(48) / 3]))
    assert indices(read(path)).count(0) == 0  # what the papers do
    assert indices(read(path, sampling='time')).count(0) in (8, 9)
    assert indices(read(path, sampling='time', start=15, end=45)).count(0) >= 1


@pytest.mark.parametrize('size, shape', [(24, (24, 40)), ((30, 20), (30, 20)), (None, (48, 80))])
def test_frames_are_resized(tmp_path, size, shape):
    found = read(encode_video(tmp_path / 'a.mp4', 13), size=size)
    assert {frame.shape for frame in found['imgs']} == {(*shape, 3)} and found['img_shape'] == shape
    assert found['original_shape'] == (48, 80)


def test_random_frames_depend_on_the_seed_alone(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 60)
    seen = []
    for seed in (0, 1, 0):
        with fixed_randomness(seed):
            seen.append(indices(read(path, num_frames=4, mode='random')))
        assert [index // 15 for index in seen[-1]] == [0, 1, 2, 3]
    assert seen[0] == seen[2] != seen[1]


def test_several_clips_of_one_file_fail_apart(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 100)
    found = ReadClip(num_frames=2).read(path, [(0., 1.), (2., 4.), (9., 10.), (None, None)])
    assert [indices(clip) for clip in found if isinstance(clip, dict)] == [[5, 18], [62, 87], [24, 74]]
    assert 'starts at 9 s, the video ends at 4 s' in found[2].reason


def test_what_is_behind_the_end_or_not_there(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 100)
    with pytest.raises(VideoDecodeError, match='a.mp4: the clip starts at 5 s, the video ends at 4 s'):
        read(path, start=5, end=9)
    with pytest.raises(VideoDecodeError, match='gone.mp4: no such file'):
        read(tmp_path / 'gone.mp4')


def test_undecodable_files_are_the_readers_errors(tmp_path):
    for path in broken_videos(tmp_path).values():
        with pytest.raises(VideoDecodeError) as expected:
            PyAVReader(path).get_batch([0, 50, 99])
        with pytest.raises(VideoDecodeError) as found:
            read(path, num_frames=3)
        assert found.value.path == path and '\n' not in str(found.value)
        assert expected.value.path == path


def test_crash_hang_and_mistake(tmp_path):
    good, crash, hang, bug = (encode_video(tmp_path / f'{name}.mp4', 9) for name in ('good', 'crash', 'hang', 'bug'))
    transform = ReadClip(num_frames=4, reader='MisbehavingReader', timeout=3)
    assert len(transform(dict(filename=good))['imgs']) == 4
    with pytest.raises(VideoDecodeError, match=r'crash\.mp4: the decoder crashed: SIGSEGV'):
        transform(dict(filename=crash))
    with pytest.raises(VideoDecodeError, match=r'hang\.mp4: the decoder timed out after 3 s'):
        transform(dict(filename=hang))
    with pytest.raises(KeyError, match='a mistake in a reader'):
        transform(dict(filename=bug))
    assert len(copy.deepcopy(transform)(dict(filename=good))['imgs']) == 4


def test_the_child_goes_with_its_transform_though_nobody_looks_for_cycles(tmp_path):
    """Also that of a subclass, which the child knows with what it added, and of a copy of one that is in use."""
    class Mirrored(ReadClip):
        def __init__(self, **kwargs) -> None:
            super().__init__(**kwargs)
            self.step = -1

        def _finish(self, frames, *args, **kwargs):
            return super()._finish(frames[:, :, ::self.step], *args, **kwargs)

    sample = dict(filename=encode_video(tmp_path / 'a.mp4', 10))
    other = DecodeProcess(os.getpid)
    before = {*children(), str(other.call(''))}
    gc.collect()
    gc.disable()
    try:
        transform = Mirrored(num_frames=4)
        plain = ReadClip(num_frames=4)(dict(sample))
        frames = transform(dict(sample))['imgs']
        for same in (copy.deepcopy(transform), pickle.loads(cloudpickle.dumps(transform))):
            np.testing.assert_array_equal(same(dict(sample))['imgs'], frames)
        np.testing.assert_array_equal(np.stack(frames)[:, :, ::-1], plain['imgs'])
        del transform, same
        other.call('')  # the next call of any buries them
        assert children() <= before
    finally:
        gc.enable()
        other.close()


def test_in_a_data_set_the_bad_ones_are_replaced(tmp_path):
    """Also in DataLoader's workers, which may not have children by multiprocessing."""
    names = ['crash', 'hang', *(f'v{i}' for i in range(6))]
    for i, name in enumerate(names):
        encode_video(tmp_path / f'{name}.mp4', 40, first=50 * i)
    (tmp_path / 'a.json').write_text(json.dumps({f'{name}.mp4': ['a'] for name in names}))
    dataset = VideoTextDataset('a.json', data_root=str(tmp_path), pipeline=[
        dict(type='ReadClip', num_frames=4, reader='MisbehavingReader', timeout=3),
        dict(type='TokenizeText', tokenizer=dict(type='OneToken')), dict(type='PackVideoText')])
    items = list(DataLoader(dataset, batch_size=None, num_workers=2))
    unreadable = [item['data_samples'].unreadable for item in items]
    assert [[os.path.basename(path) for path, _ in sample] for sample in unreadable[2:]] == [[]] * 6
    assert 'crashed: SIGSEGV' in unreadable[0][0][1] and 'after 3 s' in unreadable[1][0][1]
    for i, item in enumerate(items[2:], start=2):
        assert {read_index(frame.permute(1, 2, 0).numpy()) // 50 for frame in item['inputs']} == {i}


def test_readers_are_chosen_by_name(tmp_path):
    pytest.importorskip('decord')
    path = encode_video(tmp_path / 'a.mp4', 60)
    assert indices(read(path, reader='DecordReader', start=0.5)) == indices(read(path, start=0.5))
    for name in ('NoReader', 'os.system', 'vop_mm.PyAVReader.x'):
        with pytest.raises(KeyError, match='is not in the reader registry: .*PyAVReader'):
            ReadClip(reader=name)


@pytest.mark.parametrize('args', [dict(mode='last'), dict(pad='black'), dict(num_frames=0), dict(sampling='fps'),
                                  dict(size=0), dict(interpolation='x', size=3), dict(timeout=0)])
def test_wrong_arguments(args):
    with pytest.raises(ValueError):
        ReadClip(**args)


def test_settings_are_what_frames_depend_on():
    assert ReadClip(size=(3, 4), pad=None, timeout=3, num_threads=2).settings == dict(
        num_frames=12, mode='middle', sampling='number', size=[3, 4], interpolation='bicubic', reader='PyAVReader')
