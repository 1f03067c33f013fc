"""Training that is killed, loses a process, or diverges: what is left behind, and what comes out in the end."""
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
import torch

from tests.test_tools.test_train import TRAIN, options
from tests.tools import ROOT, start_ranks

EPOCHS, KILLS = 3, 20
# everything that a checkpoint has to carry: moments, a half accumulated gradient, an average, what is best so far
CHANGES = {'train_cfg.val_interval': 1, 'optim_wrapper.accumulative_counts': 2, 'optim_wrapper.clip_grad.max_norm': 1.,
           'randomness.deterministic': True,
           'custom_hooks': '[{"type": "SetEpochHook"}, {"type": "TrainableEMAHook", "momentum": 0.1}]'}


class Job:
    """Training in one process, or in several of one group, as a launcher starts them."""

    def __init__(self, work_dir, data, processes, *flags, **changes):
        size = {'train_dataloader.batch_size': 16 // processes, 'train_cfg.max_epochs': EPOCHS,
                'param_scheduler.0.T_max': EPOCHS}
        arguments = [TRAIN, '--work-dir', work_dir, *flags, *(['--launcher', 'pytorch'] if processes > 1 else []),
                     *options(data, **{**CHANGES, **size, **changes})]
        self.ended, self.out = {}, tempfile.TemporaryFile('w+')
        self.ranks = start_ranks('tools/train.py', *arguments, processes=processes, out=self.out, err=self.out)

    def wait(self, seconds):
        """Exit status of each rank that has ended by then."""
        until = time.monotonic() + seconds
        while len(self.ended) < len(self.ranks) and time.monotonic() < until:
            for number, rank in enumerate(self.ranks):
                if number not in self.ended and (status := rank.poll()) is not None:
                    self.ended[number] = status
            time.sleep(0.005)
        return self.ended

    def kill(self):
        for rank in self.ranks:
            rank.kill()

    def said(self):
        self.out.seek(0)
        return self.out.read()


def load(path):
    return torch.load(path, weights_only=True)


def end_state(work_dir):
    """All that a run leaves but times and dates."""
    assert not list(work_dir.glob('.*.tmp')), 'something half-written was left'
    files = {p.name: load(p) for p in work_dir.glob('*.pth')}
    last = files[f'epoch_{EPOCHS}.pth']
    history = {name: item['values'] for name, item in last['message_hub']['log_scalars'].items() if 'time' not in name}
    return dict(files=sorted(files), history=history, state={name: file['state_dict'] for name, file in files.items()},
                **{key: last[key] for key in ('optimizer', 'param_schedulers', 'not_averaged')})


def differences(found, expected, where=''):
    """Where two states are not the same to the last bit."""
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        return [d for key in expected for d in differences(found[key], expected[key], f'{where}.{key}')]
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        return [d for i in range(len(expected)) for d in differences(found[i], expected[i], f'{where}.{i}')]
    same = torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected
    return [] if same else [where]


def assert_whole(work_dir):
    """Whatever carries the name of a checkpoint is one, and the last one is there."""
    epochs = {path: load(path)['meta']['epoch'] for path in work_dir.glob('*.pth')}
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file():
        assert Path(pointer.read_text()) in epochs
    return max((epoch for path, epoch in epochs.items() if path.name.startswith('epoch_')), default=0)


@pytest.fixture(scope='module', params=[1, 2])
def undisturbed(small_demo, tmp_path_factory, request):
    """Processes, seconds, and end state of a run that nobody killed."""
    work_dir, start = tmp_path_factory.mktemp('undisturbed'), time.monotonic()
    job = Job(work_dir, small_demo, request.param)
    ended = job.wait(120)
    assert set(ended.values()) == {0} and len(ended) == request.param, job.said()
    return request.param, time.monotonic() - start, end_state(work_dir)


@pytest.mark.slow
def test_killed_twenty_times_ends_as_if_nothing_had_been(undisturbed, small_demo, tmp_path):
    processes, seconds, expected = undisturbed
    seed = random.randrange(10**6)
    rng, kills, runs, reached = random.Random(seed), 0, 0, set()
    while kills < KILLS:
        runs += 1
        work_dir = tmp_path / str(runs)
        while True:
            job = Job(work_dir, small_demo, processes, '--resume')
            ended = job.wait(rng.uniform(0.1, seconds) if kills < KILLS else 120)
            if len(ended) == processes:
                assert set(ended.values()) == {0}, job.said()
                break
            job.kill()
            kills += 1
            reached.add(assert_whole(work_dir))
        assert differences(end_state(work_dir), expected) == [], f'seed {seed}'
    assert len(reached) > 1, 'all kills came before the first checkpoint'


@pytest.mark.parametrize(('how', 'timeout'), [(signal.SIGKILL, 1800), (signal.SIGSTOP, 4)], ids=['dies', 'hangs'])
def test_a_lost_process_ends_the_others(small_demo, tmp_path, how, timeout):
    """One that dies closes its connections; one that hangs is given up after env_cfg.dist_cfg.timeout seconds."""
    job = Job(tmp_path, small_demo, 2, **{'env_cfg.dist_cfg.timeout': timeout})
    while 'Saving checkpoint at 1' not in job.said():
        assert not job.wait(0.05), job.said()
    os.kill(job.ranks[1].pid, how)
    start = time.monotonic()
    while 0 not in job.ended and time.monotonic() < start + 60:
        job.wait(0.1)
    took = time.monotonic() - start
    job.kill()
    assert job.ended.get(0, 0) > 0 and took < 30, f'it waited for {took:.0f} s\n{job.said()}'
    assert 'error: ' in job.said() and 'Traceback' not in job.said()
    assert_whole(tmp_path)


def test_torchrun_ends_with_an_error_when_a_process_dies(small_demo, tmp_path):
    """The same as users start it."""
    out = (tmp_path / 'out').open('w+')
    job = subprocess.Popen(['bash', ROOT / 'tools/dist_train.sh', TRAIN, '2', '--work-dir', tmp_path / 'work',
                            *options(small_demo, **{**CHANGES, 'train_dataloader.batch_size': 8,
                                                    'train_cfg.max_epochs': 1000})],
                           cwd=ROOT, stdout=out, stderr=out, start_new_session=True,
                           env={**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'})
    while not (tmp_path / 'work/epoch_1.pth').is_file():
        assert job.poll() is None, (tmp_path / 'out').read_text()
        time.sleep(0.1)
    ranks = [int(p.name) for p in Path('/proc').iterdir() if p.name.isdigit() and is_rank(p, job.pid)]
    assert len(ranks) == 2
    os.kill(random.choice(ranks), signal.SIGKILL)
    assert job.wait(60) != 0
    assert 'Signal 9 (SIGKILL)' in (tmp_path / 'out').read_text()
    assert assert_whole(tmp_path / 'work') >= 1


def is_rank(process, launcher):
    """Whether a folder of /proc is of a process that this torchrun started."""
    with contextlib.suppress(OSError):
        parent = int((process / 'stat').read_text().rpartition(')')[2].split()[1])
        return parent == launcher and b'train.py' in (process / 'cmdline').read_bytes()
    return False


@pytest.mark.parametrize('processes', [1, 2])
def test_a_loss_that_is_not_a_number_ends_training_with_the_last_checkpoint_kept(small_demo, tmp_path, processes):
    explode = {'param_scheduler': '[{"type": "StepLR", "step_size": 1, "gamma": 1e30}]'}
    job = Job(tmp_path, small_demo, processes, **explode)
    ended = job.wait(60)
    assert list(ended.values()) == [1] * processes
    errors = [line for line in job.said().splitlines() if line.startswith('error: ')]
    assert len(errors) == processes and len(set(errors)) == 1
    assert 'the loss is nan at step' in errors[0] and 'of epoch 2' in errors[0] and 'epoch_1.pth' in errors[0]
    assert [p.name for p in tmp_path.glob('epoch_*.pth')] == ['epoch_1.pth']
    assert all(torch.isfinite(v).all() for v in load(tmp_path / 'epoch_1.pth')['state_dict'].values())
