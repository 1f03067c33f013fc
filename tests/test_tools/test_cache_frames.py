"""Training and evaluation from stored frames are those from videos, number by number."""
import json
import os
import shutil
import signal

import pytest
import torch

from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool, start_tool
from vop_mm.datasets import FrameStore, FrameStoreError

TOOL = 'tools/data/cache_frames.py'


def of(data, **changes):
    short = {'train_cfg.max_epochs': 2, 'param_scheduler.0.T_max': 2, 'train_dataloader.num_workers': 2}
    return options(data, **short, **changes)


def cache(data, out, *args, **changes):
    return run_tool(TOOL, TRAIN, '--out', out, '--workers', '2', *args, *of(data, **changes))


def copy(data, folder):
    """A copy of a data set that may be changed, with the files' times."""
    return shutil.copytree(data, folder)


def entries(data, split='train'):
    return json.loads((data / f'{split}.json').read_text())['data_list']


@pytest.fixture(scope='module')
def frames(small_demo, tmp_path_factory):
    out = tmp_path_factory.mktemp('cached') / 'frames'
    done = cache(small_demo, out)
    assert done.returncode == 0, done.stderr
    assert f'{out}/train: 24 clips, 24 of them new' in done.stdout and f'frames_from={out}' in done.stdout
    return out


def train(data, work_dir, **changes):
    """Everything that a run logs but times, and the prompts that it ends with."""
    done = run_tool('tools/train.py', TRAIN, '--work-dir', work_dir, *of(data, **changes))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for file in work_dir.glob('*/vis_data/scalars.json')
             for line in file.read_text().splitlines()]
    lines = [{k: v for k, v in line.items() if 'time' not in k} for line in lines]
    return done, lines, torch.load(work_dir / 'epoch_2.pth', weights_only=True)['state_dict']


def test_same_losses_and_metrics_as_decoding(small_demo, frames, tmp_path):
    _, decoded, expected = train(small_demo, tmp_path / 'decoded')
    done, stored, found = train(small_demo, tmp_path / 'stored', frames_from=frames)
    assert f'frames come from {frames}/train' in done.stdout
    assert stored == decoded and len([line for line in stored if 'loss' in line]) == 6
    assert len([line for line in stored if 't2v/R1' in line]) == 1
    assert all(torch.equal(expected[key], found[key]) for key in expected) and expected.keys() == found.keys()
    metrics = []
    for source in ({}, dict(frames_from=frames)):
        done = run_tool('tools/test.py', TRAIN, tmp_path / 'stored' / 'epoch_2.pth', '--work-dir', tmp_path, '--json',
                        tmp_path / 'm.json', *of(small_demo, **source))
        assert done.returncode == 0, done.stderr
        metrics.append(json.loads((tmp_path / 'm.json').read_text()))
    assert metrics[0] == metrics[1]


def zero_shot(data, work_dir, *changes):
    return run_tool('tools/test.py', 'configs/baselines/zero_shot_demo.py', '--work-dir', work_dir, '--cfg-options',
                    f'test_dataloader.dataset.data_root={data}', 'test_dataloader.num_workers=0',
                    'test_dataloader.persistent_workers=False', *changes)


def assert_one_line(done, *words):
    assert done.returncode == 1 and done.stderr.startswith('error: ') and 'Traceback' not in done.stderr, done.stderr
    assert all(word in done.stderr.splitlines()[0] for word in words), done.stderr


def test_changed_videos_are_refused_and_absent_ones_are_not_needed(small_demo, frames, tmp_path):
    data = copy(small_demo, tmp_path / 'demo')
    video = data / 'videos' / entries(data, 'test')[0]['video']
    video.write_bytes(b'another')
    assert_one_line(zero_shot(data, tmp_path, f'frames_from={frames}'), f'{video} has changed')
    shutil.rmtree(data / 'videos')
    done = zero_shot(data, tmp_path, f'frames_from={frames}', 'test_dataloader.dataset.check_files=False')
    assert done.returncode == 0 and 't2v/R1' in done.stdout, done.stderr


def test_refused_under_other_settings(small_demo, frames, tmp_path):
    pipeline = 'test_dataloader.dataset.pipeline'
    done = zero_shot(small_demo, tmp_path, f'frames_from={frames}', f'{pipeline}.0.transforms.1.num_frames=8')
    assert_one_line(done, f'{frames}/test', 'SampleSegments.num_frames is 12 there, 8 here')
    done = zero_shot(small_demo, tmp_path, f'frames_from={frames}', f'{pipeline}.1.size=[32,32]')
    assert_one_line(done, 'ResizeFrames.size is [40, 40] there, [32, 32] here')
    assert_one_line(zero_shot(small_demo, tmp_path, f'frames_from={tmp_path}/none'), 'no frames', 'cache_frames.py')
    assert_one_line(cache(small_demo, frames, '--quality', '90'), f'{frames}/train', 'quality is None there, 90 here')


def test_killed_and_run_again(small_demo, frames, tmp_path):
    process = start_tool(TOOL, TRAIN, '--out', tmp_path / 'frames', '--split', 'train', '--workers', '1',
                         *of(small_demo))
    store = tmp_path / 'frames' / 'train' / 'data.mdb'
    while not store.is_file() or store.stat().st_size < 200_000:  # a few clips of 58 kB
        assert process.poll() is None, process.stdout.read()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with pytest.raises(FrameStoreError, match='not finished'):
        FrameStore(store.parent)
    done = cache(small_demo, tmp_path / 'frames', '--split', 'train')
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout.split('train: 24 clips, ')[1].split()[0]) < 24
    one, other = FrameStore(store.parent), FrameStore(frames / 'train')
    for entry in entries(small_demo):
        info = one.info(entry['video'])
        assert info == other.info(entry['video'])
        assert (one.frames(info, range(12)) == other.frames(info, range(12))).all()
    assert 'train: 24 clips, 0 of them new' in cache(small_demo, tmp_path / 'frames', '--split', 'train').stdout


def test_unreadable_videos_are_stored_as_such(small_demo, tmp_path):
    data = copy(small_demo, tmp_path / 'demo')
    video = data / 'videos' / entries(data)[3]['video']
    good = video.read_bytes()
    video.write_bytes(b'garbage' * 500)
    done = cache(data, tmp_path / 'frames', '--split', 'train')
    assert done.returncode == 0, done.stderr
    assert "1 videos can't be decoded:" in done.stdout and f'{video.name}: not a video' in done.stdout
    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path / 'work',
                    *of(data, frames_from=tmp_path / 'frames', **{'custom_hooks.1.max_share': 0.5}))
    assert done.returncode == 0, done.stderr
    log = ''.join(path.read_text() for path in (tmp_path / 'work').glob('*/*.log'))
    reported = [line for line in log.splitlines() if str(video) in line]
    assert len(reported) == 1 and 'not a video' in reported[0], reported
    # mended, it is decoded by the next run; an old one is tried again only when asked to
    assert '0 of them new' in cache(data, tmp_path / 'frames', '--split', 'train').stdout
    assert '1 of them new' in cache(data, tmp_path / 'frames', '--split', 'train', '--retry-unreadable').stdout
    video.write_bytes(good)
    done = cache(data, tmp_path / 'frames', '--split', 'train')
    assert '1 of them new' in done.stdout and "can't be decoded" not in done.stdout
