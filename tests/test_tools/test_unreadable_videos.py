"""Training on a data set with broken files, on two processes."""
import json
import shutil

import pytest

from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_ranks


@pytest.fixture
def broken(small_demo, tmp_path):
    """The small demo with a training video of garbage, and that video's path."""
    data = tmp_path / 'demo'
    shutil.copytree(small_demo, data)
    entry = json.loads((data / 'train.json').read_text())['data_list'][3]
    path = data / 'videos' / entry['video']
    path.write_bytes(b'garbage' * 500)
    return data, path


def train(data, work_dir, share):
    changes = {'train_dataloader.batch_size': 8, 'train_cfg.max_epochs': 1, 'param_scheduler.0.T_max': 1,
               'custom_hooks.1.max_share': share}
    return run_ranks('tools/train.py', TRAIN, '--work-dir', work_dir, '--launcher', 'pytorch',
                     *options(data, **changes), processes=2)


def test_are_named_replaced_and_counted(broken, tmp_path):
    data, path = broken
    done = train(data, tmp_path / 'work', share=0.5)
    assert done.returncode == 0, done.stderr[-3000:]
    log = ''.join(p.read_text() for p in (tmp_path / 'work').glob('*/*.log'))
    reported = [line for line in log.splitlines() if path.name in line]
    # two captions are two samples of the same video, which may meet on different processes
    assert len(reported) == 1, reported
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
    assert any('2 of 48' in line for line in log.splitlines()), log[-3000:]


def test_too_many_end_the_training(broken, tmp_path):
    data, path = broken
    done = train(data, tmp_path / 'work', share=0.01)
    assert done.returncode != 0
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith('error: ')]
    assert errors and '2 of 48' in errors[0] and path.name in errors[0] and 'max_share=0.01' in errors[0], errors
    assert not (tmp_path / 'work' / 'epoch_1.pth').exists()
