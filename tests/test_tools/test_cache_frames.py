"""Training and evaluation from stored frames are those from videos, number by number."""
import json
import os
import re
import shutil
import signal
import time

import pytest
import torch

from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool, start_tool, wait_until
from tests.web import web_server
from vop_mm.datasets import FrameStore, FrameStoreError
from vop_mm.utils.locks import locked

TOOL = 'tools/data/cache_frames.py'


def of(data, **changes):
    short = {'num_frames': 12, 'train_cfg.max_epochs': 2, 'param_scheduler.0.T_max': 2,
             'train_dataloader.num_workers': 2}
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
    assert f'using stored frames from {frames}/train' in done.stdout
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
    done = zero_shot(small_demo, tmp_path, f'frames_from={frames}', 'num_frames=8')
    assert_one_line(done, f'{frames}/test', 'num_frames is 12 there, 8 here')
    done = zero_shot(small_demo, tmp_path, f'frames_from={frames}', f'{pipeline}.0.sampling=time')
    assert_one_line(done, "sampling is 'number' there, 'time' here")
    assert_one_line(zero_shot(small_demo, tmp_path, f'frames_from={tmp_path}/none'), 'no stored frames',
                    'cache_frames.py')
    assert_one_line(cache(small_demo, frames, '--quality', '90'), f'{frames}/train', 'quality is None there, 90 here')


def test_killed_and_run_again(small_demo, frames, tmp_path):
    process = start_tool(TOOL, TRAIN, '--out', tmp_path / 'frames', '--split', 'train', '--workers', '1',
                         *of(small_demo))
    store = tmp_path / 'frames' / 'train' / 'data.mdb'
    wait_until(lambda: store.is_file() and store.stat().st_size >= 200_000, process)  # a few clips of 58 kB
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


def cut_off(source, folder):
    """A copy of stores, of which that of training was not copied to its end."""
    shutil.copytree(source, folder)
    store = folder / 'train' / 'data.mdb'
    os.truncate(store, store.stat().st_size * 2 // 3)
    return folder


@pytest.mark.parametrize('workers', [0, 2])
def test_training_from_a_store_that_was_cut_off_is_one_line(small_demo, frames, tmp_path, workers):
    cut_off(frames, tmp_path / 'frames')
    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path / 'work',
                    *of(small_demo, frames_from=tmp_path / 'frames'), f'train_dataloader.num_workers={workers}',
                    'train_dataloader.persistent_workers=False')
    assert_one_line(done, f'{tmp_path}/frames/train: cut off', 'cache_frames.py again')


def test_a_store_that_was_cut_off_is_made_anew(small_demo, frames, tmp_path):
    cut_off(frames, tmp_path / 'frames')
    done = cache(small_demo, tmp_path / 'frames', '--split', 'train', 'val')
    assert done.returncode == 0, done.stderr
    line, = (line for line in done.stdout.splitlines() if 'rebuilt' in line)
    assert line.startswith(f'{tmp_path}/frames/train: cut off: ') and line.endswith('; all of it is rebuilt')
    assert 'train: 24 clips, 24 of them new' in done.stdout and 'val: 12 clips, 0 of them new' in done.stdout
    same_frames(tmp_path / 'frames' / 'train', frames / 'train', small_demo)


def same_frames(one, other, data):
    one, other = FrameStore(one), FrameStore(other)
    for entry in entries(data):
        info = one.info(entry['video'])
        assert info == other.info(entry['video'])
        assert (one.frames(info, range(12)) == other.frames(info, range(12))).all()


def test_clips_with_flipped_bits_are_made_anew(small_demo, frames, tmp_path):
    shutil.copytree(frames, tmp_path / 'frames')
    path = tmp_path / 'frames' / 'train' / 'data.mdb'
    store = FrameStore(path.parent)
    content, videos = bytearray(path.read_bytes()), [entry['video'] for entry in entries(small_demo)]
    frame = store.frames(store.info(videos[3]), [5]).tobytes()
    content[content.index(frame) + 100] ^= 1  # of its pixels
    for found in re.finditer(b'"video": "' + videos[9].encode(), content):  # pages that are free hold it as well
        content[found.start() + 2] ^= 1  # of what is said of it
    path.write_bytes(content)
    done = cache(small_demo, tmp_path / 'frames', '--split', 'train')
    assert done.returncode == 0 and 'train: 24 clips, 2 of them new' in done.stdout, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if 'rebuilt' in line]
    assert len(lines) == 2 and videos[9] in lines[0] and f'the frames of {videos[3]} are damaged' in lines[1], lines
    same_frames(path.parent, frames / 'train', small_demo)


def test_a_second_process_is_told_that_a_store_is_being_written(small_demo, frames, tmp_path):
    shutil.copytree(frames, tmp_path / 'frames')
    with locked(tmp_path / 'frames' / 'val.lock', ''):
        done = cache(small_demo, tmp_path / 'frames', '--split', 'train')
        assert done.returncode == 0, done.stderr  # another split is nobody's business
        cut_off(frames, tmp_path / 'other')
        os.replace(tmp_path / 'other' / 'train' / 'data.mdb', tmp_path / 'frames' / 'val' / 'data.mdb')
        done = cache(small_demo, tmp_path / 'frames', '--split', 'val')
    assert_one_line(done, f'another process is storing frames in {tmp_path}/frames/val')


def test_one_odd_file_does_not_stop_the_others(small_demo, tmp_path):
    data = copy(small_demo, tmp_path / 'demo')
    name, annotation = os.fsdecode(b'\xc4\xe3.mp4'), data / 'train.json'
    content = json.loads(annotation.read_text())
    old, playlist, broken = (entry['video'] for entry in content['data_list'][:3])
    (data / 'videos' / old).rename(data / 'videos' / name)
    content['data_list'][0]['video'] = name
    annotation.write_text(json.dumps(content))
    (data / 'videos' / playlist).write_text(f'#EXTM3U\n#EXTINF:1,\nfile://{data}/videos/{broken}\n')
    (data / 'videos' / broken).write_bytes(b'\0\0\0\x20ftyp' + bytes(100))
    done = cache(data, tmp_path / 'frames', '--split', 'train')
    assert done.returncode == 0 and 'train: 24 clips, 24 of them new' in done.stdout, done.stdout + done.stderr
    assert "2 videos can't be decoded:" in done.stdout and f'{playlist}: not a video of a known' in done.stdout
    store = FrameStore(tmp_path / 'frames' / 'train')
    assert store.frames(store.info(name), [0]).shape[0] == 1


@pytest.mark.parametrize('moment', [0.5, 2])
def test_a_ctrl_c_ends_it(small_demo, tmp_path, moment):
    process = start_tool(TOOL, TRAIN, '--out', tmp_path / 'frames', '--workers', '1', *of(small_demo))
    wait_until((tmp_path / 'frames' / 'train' / 'data.mdb').is_file, process)
    time.sleep(moment / 10)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    if process.returncode != 0:  # or it was done by then
        assert process.returncode == 130 and said.endswith('interrupted\n') and 'Exception ignored' not in said, said
    else:
        assert 'to use them' in said


def test_videos_of_a_web_server_are_fetched_once(small_demo, frames, tmp_path):
    with web_server() as web:
        web.files.update({f'/{path.name}': path.read_bytes() for path in (small_demo / 'videos').iterdir()})
        changes = {f'{split}_dataloader.dataset.data_prefix.video': web.url for split in ('train', 'val', 'test')}
        done = cache(small_demo, tmp_path / 'far', **changes)
        assert done.returncode == 0 and 'train: 24 clips, 24 of them new' in done.stdout, done.stderr
        assert 'decoded' not in done.stdout
        asked = len(web.requests)
        assert 'train: 24 clips, 0 of them new' in cache(small_demo, tmp_path / 'far', **changes).stdout
        assert {headers.get('range') for _, headers in web.requests[asked:]} == {'bytes=0-0'}
    near, far = FrameStore(frames / 'train'), FrameStore(tmp_path / 'far' / 'train')
    for entry in entries(small_demo):
        place = entry['video'], entry.get('start'), entry.get('end')
        a, b = near.info(*place), far.info(*place)
        assert {**a, 'source': 0} == {**b, 'source': 0} and a['source'][0] == b['source'][0]
