"""Deferred values: the same histories as MMEngine's hub keeps, with as few reads of the device as can be."""
import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from tests.device_reads import DeviceReads
from vop_mm.engine.hooks import CheckInvalidLossHook
from vop_mm.engine.message_hub import DeferredMessageHub


def values():
    """What a run hands over: losses, norms of some steps, in several types; numbers; a history of both kinds."""
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        yield 'train/lr', 1e-3 / (1 + step), 1
        yield 'train/loss', torch.rand((), generator=generator), 1
        if step % 2:
            yield 'train/grad_norm', torch.rand(1, generator=generator, dtype=torch.float64), 3
        yield 'train/half', torch.rand((), generator=generator).bfloat16(), 1
        yield 'train/correct', torch.tensor(step), 32
        yield 'train/mixed', torch.tensor(step / 7) if step % 3 else step / 7, 1


def histories(hub):
    return {key: (buffer.data[0].tolist(), buffer.data[1].tolist()) for key, buffer in hub.log_scalars.items()}


@pytest.fixture
def hub():
    return DeferredMessageHub('deferred')


def test_histories_are_those_of_mmengine(hub):
    theirs = MessageHub('theirs')
    for key, value, count in values():
        hub.update_scalar(key, value, count)
        theirs.update_scalar(key, value, count)
    assert len(histories(theirs)) == 6 and histories(hub) == histories(theirs)
    mine, state = hub.state_dict(), theirs.state_dict()
    assert mine['resumed_keys'] == state['resumed_keys']
    assert {k: v.data[0].tolist() for k, v in mine['log_scalars'].items()} == {
        k: v.data[0].tolist() for k, v in state['log_scalars'].items()}
    resumed = DeferredMessageHub('resumed')
    resumed.load_state_dict(copy.deepcopy(mine))
    for h in (resumed, theirs):
        h.update_scalar('train/loss', torch.tensor(0.3))
    assert histories(resumed) == histories(theirs)


@pytest.mark.parametrize('read', [lambda hub: hub.log_scalars, lambda hub: hub.get_scalar('train/loss'),
                                  lambda hub: hub.state_dict()], ids=['log_scalars', 'get_scalar', 'state_dict'])
def test_a_history_is_fetched_at_once_when_it_is_read(hub, read):
    module = nn.Linear(2, 1)
    with DeviceReads(module) as reads:
        for _ in range(100):
            hub.update_scalar('train/loss', module.weight.sum())
            hub.update_scalar('train/grad_norm', module.weight.norm())
            hub.update_scalar('train/time', 0.1)
            hub.get_scalar('train/time')  # as MMEngine's timer does
        assert reads.count == 0 and hub.waits_for('train/loss') and not hub.waits_for('train/time')
        read(hub)
        assert reads.count == 1 and not hub.waits_for('train/loss')
        read(hub)
    assert reads.count == 1
    assert len(hub.get_scalar('train/grad_norm').data[0]) == 100


def test_a_value_is_what_it_was_when_it_was_handed_over(hub):
    loss = torch.tensor(1.)
    hub.update_scalar('train/loss', loss)
    loss.fill_(2.)
    hub.update_scalar('train/loss', loss)
    assert hub.get_scalar('train/loss').data[0].tolist() == [1, 2]


def test_not_more_than_a_thousand_wait(hub):
    for i in range(2500):
        hub.update_scalar('train/loss', torch.tensor(i))
        assert len(hub._waiting) < 1000
    assert hub.get_scalar('train/loss').data[0].tolist() == list(range(2500))


def test_an_unknown_history_is_an_error_as_in_mmengine(hub):
    with pytest.raises(KeyError, match='train/loss is not found'):
        hub.get_scalar('train/loss')


def test_what_is_kept_is_for_the_run_to_say(hub):
    state = dict(log_scalars={}, runtime_info=dict(max_iters=3), resumed_keys=dict(max_iters=True))
    hub.load_state_dict(state)
    hub.update_info('max_iters', 4, resumed=False)
    assert hub.get_info('max_iters') == 4 and 'max_iters' not in hub.state_dict()['runtime_info']


def test_is_the_current_instance_of_mmengine():
    hub = DeferredMessageHub.get_instance('a deferred one')
    assert MessageHub.get_current_instance() is hub is MessageHub.get_instance('a deferred one')


# -- CheckInvalidLossHook ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize('moment', ['after_train_epoch', 'before_val', 'before_save_checkpoint', 'after_train_iter'])
def test_the_first_bad_step_is_named_before_anything_is_made_of_it(hub, moment):
    """Losses wait until a log line or one of these moments; of those that wait, the third one is infinite."""
    hook, runner = CheckInvalidLossHook(), SimpleNamespace(message_hub=hub, epoch=4)
    for i, loss in enumerate((1., 2.)):
        hub.update_scalar('train/loss', torch.tensor(loss))
        hook.after_train_iter(runner, i)
    hook.after_train_epoch(runner)
    runner.epoch = 5
    for i, loss in enumerate((3., 4., float('inf'), float('nan'))):
        hub.update_scalar('train/loss', torch.tensor(loss))
        if moment == 'after_train_iter' and i == 3:
            hub.fetch()
            break
        hook.after_train_iter(runner, i)
    with pytest.raises(FloatingPointError, match='the loss is inf at step 3 of epoch 6: no checkpoint was written'):
        getattr(hook, moment)(runner, *({'after_train_iter': [3], 'before_save_checkpoint': [{}]}.get(moment, [])))


def test_every_step_is_looked_at_with_the_hub_of_mmengine():
    hub = MessageHub('plain')
    hook, runner = CheckInvalidLossHook(), SimpleNamespace(message_hub=hub, epoch=0)
    hub.update_scalar('train/loss', 1.)
    hook.after_train_iter(runner, 0)
    hub.update_scalar('train/loss', float('nan'))
    with pytest.raises(FloatingPointError, match='the loss is nan at step 2 of epoch 1'):
        hook.after_train_iter(runner, 1)
