"""The moving average of what trains, in real runs: its values, who sees it, and that resuming changes nothing."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool
from vop_mm.engine.hooks import TrainableEMAHook
from vop_mm.models.tuning import trainable_parameters
from vop_mm.registry import HOOKS

EMA = dict(type='TrainableEMAHook', momentum=0.25)


@HOOKS.register_module(force=True)
class KeepEveryStep(Hook):
    """Leaves the parameters after each step, and those that are evaluated, in a file."""

    def __init__(self, file):
        self.file, self.steps, self.evaluated = file, [], []

    def _copy(self, runner):
        return {name: p.detach().clone() for name, p in trainable_parameters(runner.model).items()}

    def before_train(self, runner):
        self.steps = [self._copy(runner)]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append(self._copy(runner))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.evaluated = [self._copy(runner)]

    def after_train(self, runner):
        torch.save((self.steps, self.evaluated), self.file)


@HOOKS.register_module(force=True)
class StopBeforeSecondEpoch(Hook):
    """Ends the run as a crash would."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            raise RuntimeError('stopped on purpose')


def with_this_module():
    """In the tool's process: what is registered above is known there."""


def train(work_dir, data, *flags, epochs=2, hooks=(EMA,), **changes):
    hooks = [dict(type='SetEpochHook'), *hooks]
    changes = {'train_cfg.max_epochs': epochs, 'train_cfg.val_interval': 1, 'custom_hooks': json.dumps(hooks),
               **changes}
    done = run_tool('tools/train.py', TRAIN, '--work-dir', work_dir, *flags, *options(data, **changes),
                    before=with_this_module)
    assert done.returncode == 0, done.stderr
    return torch.load(Path(work_dir) / f'epoch_{epochs}.pth', weights_only=True)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope='module')
def averaged(small_demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp('averaged')
    keep = dict(type='KeepEveryStep', file=str(folder / 'steps.pt'))
    return folder, train(folder, small_demo, hooks=(EMA, keep))


@pytest.mark.parametrize('accumulate', [1, 2])
def test_is_the_average_that_the_formula_gives(averaged, small_demo, tmp_path, accumulate):
    folder, checkpoint = averaged
    if accumulate > 1:
        folder = tmp_path
        keep = dict(type='KeepEveryStep', file=str(folder / 'steps.pt'))
        checkpoint = train(folder, small_demo, hooks=(EMA, keep),
                           **{'optim_wrapper.accumulative_counts': accumulate, 'train_dataloader.batch_size': 8})
    steps, evaluated = torch.load(folder / 'steps.pt', weights_only=True)
    assert len(steps) == 1 + 2 * 3 * accumulate
    average = steps[0]
    for step in steps[accumulate::accumulate]:
        average = {name: 0.75 * average[name] + 0.25 * step[name] for name in average}
    for name, value in average.items():
        torch.testing.assert_close(checkpoint['state_dict'][name], value, rtol=0, atol=1e-6)
        torch.testing.assert_close(evaluated[0][name], value, rtol=0, atol=1e-6)
    assert equal(checkpoint['not_averaged'], steps[-1])
    assert not equal(checkpoint['not_averaged'], checkpoint['state_dict'])


def test_training_itself_is_not_changed(averaged, small_demo, tmp_path):
    assert equal(train(tmp_path, small_demo, hooks=())['state_dict'], averaged[1]['not_averaged'])


def test_the_best_file_holds_the_average_that_was_evaluated(averaged, small_demo, tmp_path):
    folder, _ = averaged
    best, = folder.glob('best_*.pth')
    assert set(torch.load(best, weights_only=True)) == {'meta', 'state_dict'}
    done = run_tool('tools/test.py', TRAIN, best, '--work-dir', tmp_path, '--json', tmp_path / 'm.json',
                    *options(small_demo, **{'test_dataloader.dataset.ann_file': 'dev.json'}))
    assert done.returncode == 0, done.stderr
    log, = folder.glob('*/vis_data/scalars.json')
    dev = [line for line in map(json.loads, log.read_text().splitlines()) if 't2v/MnR' in line]
    tested = json.loads((tmp_path / 'm.json').read_text())
    line = dev[int(best.stem.rsplit('_', 1)[1]) - 1]
    assert all(line[key] == pytest.approx(value) for key, value in tested.items() if '/' in key)


def test_resumed_goes_on_with_average_and_parameters(averaged, small_demo, tmp_path):
    with pytest.raises(AssertionError, match='stopped on purpose'):
        train(tmp_path, small_demo, hooks=(EMA, dict(type='StopBeforeSecondEpoch')))
    resumed = train(tmp_path, small_demo, '--resume')
    assert equal(resumed['state_dict'], averaged[1]['state_dict'])
    assert equal(resumed['not_averaged'], averaged[1]['not_averaged'])


@pytest.mark.parametrize('momentum', [0, -1, 1.5])
def test_momentum_is_a_share(momentum):
    with pytest.raises(ValueError, match='momentum'):
        TrainableEMAHook(momentum)
