"""What this project's runner does that MMEngine's doesn't."""
import os
from pathlib import Path

import pytest

from tests.test_tools.test_train import TRAIN, options
from tests.tools import free_port, run_tool


def log_of(work_dir):
    return ''.join(p.read_text() for p in Path(work_dir).glob('*/*.log'))


def slurm():
    os.environ.update(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0', SLURM_NODELIST='here',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))


def test_slurm_without_a_gpu(small_demo, tmp_path):
    """One task, with the environment that srun sets; more of them are gloo's business, as under torchrun."""
    done = run_tool('tools/test.py', 'configs/baselines/zero_shot_demo.py', '--launcher', 'slurm',
                    '--work-dir', tmp_path, '--cfg-options',
                    f'test_dataloader.dataset.data_root={small_demo}', 'test_dataloader.num_workers=0',
                    'test_dataloader.persistent_workers=False', before=slurm)
    assert done.returncode == 0, done.stderr
    assert 'Distributed launcher: slurm' in log_of(tmp_path) and 't2v/R1:' in log_of(tmp_path)


@pytest.mark.parametrize(('batch_size', 'flags', 'rate', 'warns'), [
    (32, [], '0.005', False), (16, [], '0.005', True), (16, ['--auto-scale-lr'], '0.0025', False)])
def test_global_batch_and_learning_rate_are_logged(small_demo, tmp_path, batch_size, flags, rate, warns):
    changes = {'train_dataloader.batch_size': batch_size, 'train_cfg.max_epochs': 1}
    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path, *flags, *options(small_demo, **changes))
    assert done.returncode == 0, done.stderr
    log = log_of(tmp_path)
    assert f'Global batch {batch_size}: 1 processes with {batch_size} pairs, 1 steps accumulated' in log
    assert f'accumulated; effective learning rate {rate}' in log
    assert ('(0.005 in the config)' in log) == (rate != '0.005')
    assert f'1 caption-epochs over 48 pairs of video and caption, {48 // batch_size} updates in each' in log
    assert ('was meant for a global batch of 32' in log) == warns
