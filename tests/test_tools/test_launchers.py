"""Several nodes under torchrun, and slurm: training, a checkpoint's evaluation, and zero-shot, against one process.

The nodes are two launchers on this machine. Of slurm there is a stand-in for ``srun``, which starts tasks with the
environment that slurm gives them.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.test_tools.test_train import TRAIN, options, prompts, scalars
from tests.tools import ROOT, free_port, run_tool

ZERO_SHOT = 'configs/baselines/zero_shot_demo.py'
TASKS = 2
SRUN = f'''#!{sys.executable}
import os, subprocess, sys
tasks = next(int(a.partition('=')[2]) for a in sys.argv if a.startswith('--ntasks='))
command = sys.argv[sys.argv.index('python'):]
started = [subprocess.Popen(command, env=dict(os.environ, SLURM_PROCID=str(i), SLURM_NTASKS=str(tasks),
                                              SLURM_LOCALID=str(i), SLURM_NODELIST='node[1-2]')) for i in range(tasks)]
sys.exit(max(task.wait() for task in started))
'''
SCONTROL = '''#!/bin/sh
[ "$*" = "show hostname node[1-2]" ] && echo 127.0.0.1
'''


def two_nodes(tool, *arguments, folder):
    """Both nodes' launchers, each with one process."""
    env = dict(environment(), NNODES='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    nodes = [start(['bash', f'tools/dist_{tool}.sh', *arguments[:2 if tool == 'test' else 1], '1',
                    *arguments[2 if tool == 'test' else 1:]], folder / f'node{rank}', dict(env, NODE_RANK=str(rank)))
             for rank in range(2)]
    return [(node.wait(), (folder / f'node{rank}').read_text()) for rank, node in enumerate(nodes)]


def slurm(tool, *arguments, folder):
    """Two tasks."""
    (folder / 'bin').mkdir()
    for name, text in (('srun', SRUN), ('scontrol', SCONTROL)):
        (folder / 'bin' / name).write_text(text)
        (folder / 'bin' / name).chmod(0o755)
    env = environment(folder / 'bin')
    job = start(['bash', f'tools/slurm_{tool}.sh', 'partition', 'job', *arguments], folder / 'out',
                dict(env, GPUS=str(TASKS), MASTER_PORT=str(free_port())))
    return [(job.wait(), (folder / 'out').read_text())]


def environment(*first):
    return dict(os.environ, PATH=':'.join([*map(str, first), str(Path(sys.executable).parent), os.environ['PATH']]))


def start(command, out, env):
    with out.open('w') as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=env)


@pytest.fixture(scope='module')
def alone(small_demo, tmp_path_factory):
    """One epoch in one process, what its checkpoint reaches on the test split, and zero-shot."""
    folder = tmp_path_factory.mktemp('alone')
    done = run_tool('tools/train.py', TRAIN, '--work-dir', folder, *sgd(small_demo, 16))
    assert done.returncode == 0, done.stderr
    for name, arguments in (('test', (TRAIN, folder / 'epoch_1.pth')), ('zero_shot', (ZERO_SHOT,))):
        done = run_tool('tools/test.py', *arguments, '--work-dir', folder / name, '--json', folder / f'{name}.json',
                        *of_test(small_demo, 64))
        assert done.returncode == 0, done.stderr
    return folder


def sgd(data, batch_size):
    """Plain steps: what Adam would make of rounding is not of interest here."""
    return options(data, **{'train_dataloader.batch_size': batch_size, 'train_cfg.max_epochs': 1,
                            'optim_wrapper.optimizer': '{"type": "SGD", "lr": 0.1, "_delete_": True}',
                            'optim_wrapper.accumulative_counts': 2, 'optim_wrapper.clip_grad.max_norm': 0.1})


def of_test(data, batch_size):
    return ['--cfg-options', f'test_dataloader.dataset.data_root={data}', 'test_dataloader.num_workers=0',
            'test_dataloader.persistent_workers=False', f'test_dataloader.batch_size={batch_size}']


@pytest.mark.slow
@pytest.mark.parametrize('launch', [two_nodes, slurm])
def test_training_is_that_of_one_process(alone, small_demo, tmp_path, launch):
    work = tmp_path / 'work'
    for status, said in launch('train', TRAIN, '--work-dir', work, *sgd(small_demo, 8), folder=tmp_path):
        assert status == 0, said
    one, two = scalars(alone), scalars(work)
    for key in ('loss', 'grad_norm'):
        expected, found = ([line[key] for line in lines if key in line] for lines in (one, two))
        assert expected
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    expected, found = prompts(alone / 'epoch_1.pth'), prompts(work / 'epoch_1.pth')
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)
    log = ''.join(p.read_text() for p in work.glob('*/*.log'))
    assert f'Global batch 32: {TASKS} processes with 8 pairs, 2 steps accumulated; effective learning rate 0.1' in log


@pytest.mark.slow
@pytest.mark.parametrize(('launch', 'what'), [(two_nodes, 'test'), (slurm, 'zero_shot')])
def test_evaluation_is_that_of_one_process(alone, small_demo, tmp_path, launch, what):
    arguments = (TRAIN, alone / 'epoch_1.pth') if what == 'test' else (ZERO_SHOT, 'none')
    for status, said in launch('test', *arguments, '--work-dir', tmp_path / 'work', '--json', tmp_path / 'found.json',
                               *of_test(small_demo, 5), folder=tmp_path):
        assert status == 0, said
    # 13 videos: 2 doesn't divide them
    assert json.loads((tmp_path / 'found.json').read_text()) == json.loads((alone / f'{what}.json').read_text())
