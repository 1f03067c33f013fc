"""Buffered values: the same histories as MMEngine's hook keeps, with as few reads of the device as can be."""
import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub
from torch import nn

from tests.device_reads import DeviceReads
from vop_mm.engine.checkpoint import unpack
from vop_mm.engine.hooks import BufferedRuntimeInfoHook

STEPS = 20


def outputs():
    """What the steps of a run give: losses, in several types, of some steps more than of others."""
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        yield {'loss': torch.rand((), generator=generator),
               **({'other': torch.rand(1, generator=generator, dtype=torch.float64)} if step % 2 else {}),
               'half': torch.rand((), generator=generator).bfloat16(), 'correct': torch.tensor(step), 'plain': step / 7,
               'mixed': torch.tensor(step / 7) if step % 3 else step / 7}


def histories(hub):
    return {key: (buffer.data[0].tolist(), buffer.data[1].tolist()) for key, buffer in hub.log_scalars.items()}


class Run(SimpleNamespace):
    """What a runner is to a hook."""

    def __init__(self, hook, *, steps=STEPS, **logger):
        super().__init__(hook=hook, hooks=[hook, *([LoggerHook(**logger)] if logger else [])], epoch=0,
                         message_hub=MessageHub('run'), train_dataloader=range(steps))

    def step(self, batch_idx, outputs):
        self.hook.after_train_iter(self, batch_idx, outputs=outputs)


def test_histories_are_those_of_mmengine():
    run, theirs = Run(BufferedRuntimeInfoHook(), interval=6), Run(RuntimeInfoHook())
    for i, values in enumerate(outputs()):
        run.step(i, values)
        theirs.step(i, values)
    run.hook.after_train_epoch(run)
    assert len(histories(theirs.message_hub)) == 6 and histories(run.message_hub) == histories(theirs.message_hub)
    mine, state = run.message_hub.state_dict(), theirs.message_hub.state_dict()
    assert mine['resumed_keys'] == state['resumed_keys'] and list(mine['log_scalars']) == list(state['log_scalars'])


@pytest.mark.parametrize(('interval', 'ignore_last', 'logged'), [
    (5, True, [5, 10]), (5, False, [5, 10, 12]), (50, True, [12]), (1, True, range(1, 13))])
def test_values_are_fetched_at_once_when_they_are_logged(interval, ignore_last, logged):
    module, run = nn.Linear(2, 1), Run(BufferedRuntimeInfoHook(), steps=12, interval=interval, ignore_last=ignore_last)
    with DeviceReads(module) as reads:
        for i in range(12):
            before = reads.count
            run.step(i, dict(loss=module.weight.sum(), other=module.weight.norm()))
            assert reads.count - before == (i + 1 in logged), i
            known = run.message_hub.log_scalars.get('train/loss')
            assert i + 1 not in logged or len(known.data[0]) == i + 1


@pytest.mark.parametrize('moment', ['after_train_epoch', 'before_val', 'before_save_checkpoint'])
def test_values_are_fetched_before_a_validation_and_a_checkpoint(moment):
    run, checkpoint = Run(BufferedRuntimeInfoHook(), interval=50), {}
    run.message_hub.update_info('loop_stage', 'train')
    checkpoint['message_hub'] = run.message_hub.state_dict()
    for i in range(3):
        run.step(i, dict(loss=torch.tensor(float(i))))
    assert not run.message_hub.log_scalars
    getattr(run.hook, moment)(run, *([checkpoint] if 'checkpoint' in moment else []))
    assert histories(run.message_hub) == {'train/loss': ([0, 1, 2], [1, 1, 1])}
    if 'checkpoint' in moment:
        assert checkpoint['message_hub']['log_scalars']['train/loss'].data[0].tolist() == [0, 1, 2]


def test_a_value_is_what_it_was_when_it_was_handed_over():
    run, loss = Run(BufferedRuntimeInfoHook()), torch.tensor(1.)
    run.step(0, dict(loss=loss))
    loss.fill_(2.)
    run.step(1, dict(loss=loss))
    run.hook.flush(run)
    assert histories(run.message_hub)['train/loss'][0] == [1, 2]


def test_not_more_than_a_thousand_wait():
    run = Run(BufferedRuntimeInfoHook(), steps=9999)
    for i in range(2500):
        run.step(i, dict(loss=torch.tensor(float(i))))
        assert len(run.hook._pending) < 1000
    run.hook.flush(run)
    assert histories(run.message_hub)['train/loss'][0] == list(range(2500))


@pytest.mark.parametrize('clip', [nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_])
def test_norms_are_those_of_the_wrapper(clip):
    run, parameter = Run(BufferedRuntimeInfoHook()), nn.Parameter(torch.zeros(2))
    wrapper = SimpleNamespace(clip_func=clip, grad_name='grad_norm')
    run.hook.buffer_norms(wrapper)
    for scale in (1., 2.):
        parameter.grad = torch.tensor([3., 4.]) * scale
        assert wrapper.clip_func([parameter], 1.) is None
        assert parameter.grad.abs().max() <= 1
    run.hook.flush(run)
    expected = {'train/grad_norm': ([5, 10], [1, 1])} if clip is nn.utils.clip_grad_norm_ else {}
    assert histories(run.message_hub) == expected
    run.hook.buffer_norms(SimpleNamespace())  # several optimizers, or none that is clipped


def test_what_is_kept_is_for_the_run_to_say():
    """A checkpoint can't make a run fail by what it says of its keys."""
    content = dict(message_hub=dict(log_scalars={'train/loss': dict(values=[1.], counts=[1], max_length=9)},
                                    runtime_info=dict(max_iters=3), resumed_keys=dict(max_iters=False, other=False)))
    unpack(content)
    hub = MessageHub('resumed')
    hub.load_state_dict(copy.deepcopy(content['message_hub']))
    hub.update_info('max_iters', 4)
    hub.update_scalar('train/loss', 2.)
    assert hub.state_dict()['runtime_info'] == dict(max_iters=4)
    assert histories(hub) == {'train/loss': ([1, 2], [1, 1])}


@pytest.mark.parametrize('moment', ['after_train_epoch', 'before_val', 'before_save_checkpoint', 'after_train_iter'])
def test_the_first_bad_step_is_named_before_anything_is_made_of_it(moment):
    """Losses wait until a log line or one of these moments; of those that wait, the third one is infinite."""
    run = Run(BufferedRuntimeInfoHook(), interval=4)
    run.epoch = 4
    for i, loss in enumerate((1., 2.)):
        run.step(i, dict(loss=torch.tensor(loss)))
    run.hook.after_train_epoch(run)
    run.epoch = 5
    for i, loss in enumerate((3., 4., float('inf'))):
        run.step(i, dict(loss=torch.tensor(loss)))
    with pytest.raises(FloatingPointError, match='the loss is inf at step 3 of epoch 6: no checkpoint was written'):
        if moment == 'after_train_iter':
            run.step(3, dict(loss=torch.tensor(float('nan'))))
        else:
            getattr(run.hook, moment)(run, *([{}] if moment == 'before_save_checkpoint' else []))
