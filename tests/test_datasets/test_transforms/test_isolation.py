"""Decoding in a child process: the same samples as without, and an error where the child dies or hangs."""
import copy
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from torch.utils.data import DataLoader

from tests.broken_videos import break_video
from tests.videos import broken_videos, encode_video, read_index
from vop_mm.datasets import VideoDecodeError, VideoTextDataset
from vop_mm.datasets.randomness import fixed_randomness
from vop_mm.datasets.transforms import IsolatedDecode
from vop_mm.registry import TOKENIZERS, TRANSFORMS

STEPS = [dict(type='OpenVideo'), dict(type='SampleSegments', num_frames=4, mode='random'),
         dict(type='mmaction.DecordDecode')]
DRAWING = [dict(type='mmaction.RandomResizedCrop', area_range=(0.3, 1.0)), dict(type='mmaction.Flip')]


@TOKENIZERS.register_module(force=True)
class OneToken:
    """Every caption is one token."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.ones(len(texts), 1, dtype=torch.int64)


@TRANSFORMS.register_module(force=True)
class Misbehave:
    """Does what the file's name says."""

    def __call__(self, results: dict) -> dict:
        name = os.path.basename(results['filename'])
        if name.startswith('crash'):
            os.kill(os.getpid(), signal.SIGSEGV)
        if name.startswith('hang'):
            time.sleep(600)
        if name.startswith('bug'):
            raise KeyError('a mistake in a transform')
        return results


def isolated(*steps, **kwargs) -> IsolatedDecode:
    return TRANSFORMS.build(dict(type='IsolatedDecode', transforms=steps, **kwargs))


def test_equals_what_it_isolates_also_in_what_is_drawn(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 60)
    plain = Compose([TRANSFORMS.build(step) for step in STEPS + DRAWING])
    inside = Compose([isolated(*STEPS), *(TRANSFORMS.build(step) for step in DRAWING)])
    assert len({tuple(plain(dict(filename=path))['frame_inds']) for _ in range(4)}) > 1  # it does draw
    for seed in range(5):
        with fixed_randomness(seed):
            expected, after = plain(dict(filename=path, start=0.4)), (np.random.rand(), torch.rand(1))
        with fixed_randomness(seed):
            found, after_found = inside(dict(filename=path, start=0.4)), (np.random.rand(), torch.rand(1))
        assert after == after_found
        assert set(found) == set(expected)
        assert all(np.array_equal(a, b) for a, b in zip(found['imgs'], expected['imgs'], strict=True))
        assert found['frame_inds'].tolist() == expected['frame_inds'].tolist()


def test_undecodable_files_are_the_same_errors(tmp_path):
    transform, plain = isolated(*STEPS), Compose([TRANSFORMS.build(step) for step in STEPS])
    for path in [*broken_videos(tmp_path).values(), str(tmp_path / 'gone.mp4')]:
        with pytest.raises(VideoDecodeError) as expected:
            plain(dict(filename=path))
        with pytest.raises(VideoDecodeError) as found:
            transform(dict(filename=path))
        assert (str(found.value), found.value.path, found.value.reason) == (
            str(expected.value), expected.value.path, expected.value.reason)


def test_crash_hang_and_mistake(tmp_path):
    good, crash, hang, bug = (encode_video(tmp_path / f'{name}.mp4', 9) for name in ('good', 'crash', 'hang', 'bug'))
    transform = isolated(dict(type='Misbehave'), *STEPS, timeout=3)
    assert len(transform(dict(filename=good))['imgs']) == 4
    with pytest.raises(VideoDecodeError, match=r'crash\.mp4: the decoder died: SIGSEGV'):
        transform(dict(filename=crash))
    with pytest.raises(VideoDecodeError, match=r'hang\.mp4: the decoder did not end within 3 s'):
        transform(dict(filename=hang))
    with pytest.raises(KeyError, match='a mistake in a transform'):
        transform(dict(filename=bug))
    assert len(copy.deepcopy(transform)(dict(filename=good))['imgs']) == 4


def test_a_file_that_ends_the_process_of_decord(tmp_path):
    good, crash = (encode_video(tmp_path / f'{name}.mp4', 60) for name in ('good', 'crash'))
    break_video(crash, 'crash')
    code = f'import decord; decord.VideoReader({crash!r})'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == -signal.SIGABRT
    transform = isolated(*STEPS)
    for _ in range(2):
        with pytest.raises(VideoDecodeError, match=r'crash\.mp4: the decoder died: SIGABRT'):
            transform(dict(filename=crash))
        assert len(transform(dict(filename=good))['imgs']) == 4


def test_in_a_data_set_the_bad_ones_are_replaced(tmp_path):
    """Also in DataLoader's workers, which may not have children by multiprocessing."""
    names = ['crash', 'hang', *(f'v{i}' for i in range(6))]
    for i, name in enumerate(names):
        encode_video(tmp_path / f'{name}.mp4', 40, first=50 * i)
    (tmp_path / 'a.json').write_text(json.dumps({f'{name}.mp4': ['a'] for name in names}))
    decode = dict(type='IsolatedDecode', timeout=3, transforms=[dict(type='Misbehave'), *STEPS])
    dataset = VideoTextDataset('a.json', data_root=str(tmp_path), pipeline=[
        decode, dict(type='TokenizeText', tokenizer=dict(type='OneToken')), dict(type='PackVideoText')])
    items = list(DataLoader(dataset, batch_size=None, num_workers=2))
    unreadable = [item['data_samples'].unreadable for item in items]
    assert [[os.path.basename(path) for path, _ in sample] for sample in unreadable[2:]] == [[]] * 6
    assert 'died: SIGSEGV' in unreadable[0][0][1] and 'within 3 s' in unreadable[1][0][1]
    for i, item in enumerate(items[2:], start=2):
        assert {read_index(frame.permute(1, 2, 0).numpy()) // 50 for frame in item['inputs']} == {i}
