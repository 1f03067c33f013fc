"""Two trainings in one work directory: the second is refused, and changes nothing of the first one's."""
import os
import signal
import tempfile
import time

import pytest

from tests.forks import fork_runs
from tests.test_tools.test_bad_input import assert_one_line
from tests.test_tools.test_train import TRAIN, options
from tests.tools import ForkedTool, run_ranks, run_tool, start_ranks

ENDLESS = {'train_cfg.max_epochs': 1000, 'param_scheduler.0.T_max': 1000, 'default_hooks.logger.interval': 1000}


def command(work_dir, *flags):
    return ['tools/train.py', TRAIN, '--work-dir', str(work_dir), *flags]


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)


@pytest.fixture
def work_dir(small_demo, tmp_path):
    """Where a training has written its first checkpoint, and stands still; killed when the test ends."""
    with tempfile.TemporaryFile('w+') as log:
        process = ForkedTool(*command(tmp_path / 'work'), *options(small_demo, **ENDLESS), out=log, err=log)
        try:
            wait_for(tmp_path / 'work/epoch_1.pth', process)
            os.kill(process.pid, signal.SIGSTOP)
            yield tmp_path / 'work'
        finally:
            process.kill()


def contents(folder):
    """What a training leaves but its logs."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize('processes', [1, 2])
def test_the_second_is_refused(work_dir, small_demo, processes):
    before = contents(work_dir)
    again = [*command(work_dir, '--resume'), *(['--launcher', 'pytorch'] if processes > 1 else []),
             *options(small_demo, **{'randomness.seed': 1})]
    done = run_tool(*again) if processes == 1 else run_ranks(*again, processes=processes)
    said = f'another training is running in {work_dir}'
    if processes == 1:
        assert_one_line(done, said, '--work-dir')
    assert done.returncode == 1 and said in done.stderr and 'Traceback' not in done.stderr
    assert contents(work_dir) == before and 'vop_demo.py' in before


def test_evaluation_is_not_refused_and_leaves_the_training_s_config(work_dir, small_demo):
    before = contents(work_dir)
    done = run_tool('tools/test.py', TRAIN, work_dir / 'epoch_1.pth', '--work-dir', work_dir, *options(small_demo))
    assert done.returncode == 0, done.stderr
    assert contents(work_dir) == before


def test_another_run_of_the_comparison_is_refused(small_demo, tmp_path):
    table = ['tools/analysis_tools/compare_methods.py', TRAIN, '--out', tmp_path / 'table']
    with tempfile.TemporaryFile('w+') as log:
        process = ForkedTool(*table, *options(small_demo, **ENDLESS), out=log, err=log, before=fork_runs)
        try:
            while not (logs := list(tmp_path.rglob('epoch_1.pth'))):
                assert process.poll() is None
                time.sleep(0.02)
            log_file = logs[0].parent / 'run.log'
            os.killpg(process.pid, signal.SIGSTOP)
            before = log_file.read_bytes()
            assert_one_line(run_tool(*table, *options(small_demo, **ENDLESS)), 'another process is running', TRAIN)
            assert before and log_file.read_bytes() == before
        finally:
            process.kill()


@pytest.mark.parametrize('processes', [1, 2])
def test_after_a_kill_resuming_works_at_once(small_demo, tmp_path, processes):
    """Of processes that load data, and that outlive it for a moment, none holds the lock."""
    small = {'train_dataloader.num_workers': 1, 'train_dataloader.persistent_workers': True,
             'train_dataloader.batch_size': 8}
    flags = ['--launcher', 'pytorch'] if processes > 1 else []
    with tempfile.TemporaryFile('w+') as log:
        ranks = start_ranks(*command(tmp_path / 'work', *flags), *options(small_demo, **{**ENDLESS, **small}),
                            processes=processes, out=log, err=log)
        try:
            wait_for(tmp_path / 'work/epoch_1.pth', ranks[0])
            os.kill(ranks[0].pid, signal.SIGKILL)
            done = run_tool(*command(tmp_path / 'work', '--resume'),
                            *options(small_demo, **{'train_cfg.max_epochs': 2}))
        finally:
            for rank in ranks:
                rank.kill()
    assert done.returncode == 0, done.stderr
