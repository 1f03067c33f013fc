"""Ctrl-C at any moment: one line, status 130, and nothing is left, neither files nor processes."""
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.test_tools.test_train import TRAIN, options
from tests.test_utils.test_interrupts import members_soon
from tests.tools import ROOT, ForkedTool, run_tool, start_tool, wait_until

ZERO_SHOT = 'configs/baselines/zero_shot_demo.py'
MOMENTS = 3
TOOLS = {  # with the seconds that one takes
    'index': (.7, lambda data, out: ['tools/index_videos.py', data / 'videos', out / 'index', '--config', ZERO_SHOT]),
    'cache': (2., lambda data, out: ['tools/data/cache_frames.py', TRAIN, '--out', out / 'frames', '--workers', '2',
                                     *options(data)]),
    'check': (.5, lambda data, out: ['tools/data/check_dataset.py', data / 'train.json', '--video-dir', data / 'videos',
                                     '--report', out / 'report.csv', '--workers', '2']),
    'train': (2., lambda data, out: ['tools/train.py', TRAIN, '--work-dir', out / 'work', *options(data)]),
    'train with workers': (2., lambda data, out: ['tools/train.py', TRAIN, '--work-dir', out / 'work', *options(
        data, **{'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True})]),
    'compare': (6., lambda data, out: ['tools/analysis_tools/compare_methods.py', TRAIN, '--out', out / 'table',
                                       *options(data)]),
    'demo': (2., lambda data, out: ['tools/data/make_demo.py', out / 'demo', '--num-train', '24', '--num-dev', '12',
                                    '--num-test', '13', '--workers', '2']),
    'compress': (3., lambda data, out: ['tools/data/compress_videos.py', data / 'videos', out / 'copies']),
}


def tool(name, data, out):
    return list(map(str, TOOLS[name][1](data, out)))


@pytest.mark.slow
@pytest.mark.parametrize('name', TOOLS)
def test_at_random_moments(name, small_demo, tmp_path):
    """To the tool alone, as ``kill`` does, and to the whole group, as a terminal does."""
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    for number in range(MOMENTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        moment = rng.uniform(0, TOOLS[name][0])
        while not interrupted(tool(name, small_demo, folder), moment, number % 2, f'seed {seed}, {moment} s',
                              str(folder)):
            moment /= 2  # it was faster
        assert [str(path) for path in folder.rglob('.vop_mm.*')] == [] == list(folder.glob('pymp-*'))


def interrupted(command, moment, whole_group, what, temporary=None):
    """Run a tool and interrupt it; False where it had ended before."""
    with tempfile.TemporaryFile('w+') as log:
        process = ForkedTool(*command, out=log, err=log, before=lambda: setattr(tempfile, 'tempdir', temporary))
        while not listens(process.pid):
            time.sleep(0.001)
        time.sleep(moment)
        if process.poll() is not None:
            return False
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        sent = time.monotonic()
        try:
            status = process.wait(30)
            if status == 0 and time.monotonic() - sent < 0.05:  # it was on its last lines
                return False
            left = members_soon(process.pid)
        finally:
            process.kill()
        log.seek(0)
        said = log.read()
    assert status == 130, f'{what}\n{said}'
    assert said.splitlines()[-1] == 'interrupted' and said.count('interrupted\n') == 1, f'{what}\n{said}'
    assert 'Traceback' not in said and 'Exception ignored' not in said and 'error: ' not in said, f'{what}\n{said}'
    assert left == [], what
    return True


def listens(pid):
    """Whether a tool has come to ``run_cli``: before that it is Python that says something. Or whether it has ended."""
    with contextlib.suppress(OSError), open(f'/proc/{pid}/status') as status:
        lines = dict(line.split(':', 1) for line in status)
        return int(lines.get('SigCgt', '0'), 16) >> signal.SIGALRM - 1 & 1 or lines['State'].strip()[0] in 'ZX'
    return True


def test_the_same_command_then_goes_to_its_end(small_demo, tmp_path):
    """Nothing that was interrupted is in the way, of itself or of a lock."""
    for name in ('index', 'cache'):
        command = tool(name, small_demo, tmp_path)
        moment = TOOLS[name][0] / 2
        while not interrupted(command, moment, False, name):
            moment /= 2
        done = run_tool(*command)
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.rglob('.vop_mm.*')) == []


@pytest.mark.slow
def test_launchers_end_too(small_demo, tmp_path):
    with open(tmp_path / 'log', 'w+') as log:
        job = subprocess.Popen(['bash', ROOT / 'tools/dist_train.sh', TRAIN, '2', '--work-dir', tmp_path / 'work',
                                *options(small_demo, **{'train_dataloader.batch_size': 8,
                                                        'train_cfg.max_epochs': 1000})],
                               cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                               env={**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'})
        while not (tmp_path / 'work/epoch_1.pth').is_file():
            assert job.poll() is None, (tmp_path / 'log').read_text()
            time.sleep(0.1)
        os.killpg(job.pid, signal.SIGINT)
        assert job.wait(60) == 130
    said = (tmp_path / 'log').read_text()
    assert said.endswith('\ninterrupted\n') and said.count('interrupted') == 1 and 'Traceback' not in said, said
    assert members_soon(job.pid) == [] and list(tmp_path.rglob('.vop_mm.*')) == []


def test_while_libraries_are_imported(tmp_path):
    """A tool as users start it, with no library loaded yet."""
    process = start_tool('tools/test.py', ZERO_SHOT, '--work-dir', tmp_path)
    wait_until(lambda: loads_torch(process.pid), process)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == 'interrupted\n' and process.returncode == 130


def loads_torch(pid):
    with open(f'/proc/{pid}/maps') as maps:
        return 'libtorch' in maps.read()
