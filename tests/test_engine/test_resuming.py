"""Checkpoints that training can't go on from are refused before it does."""
import copy

import pytest
import torch
from mmengine.optim import CosineAnnealingLR
from torch import nn

from vop_mm.engine.checkpoint import CheckpointError
from vop_mm.engine.resuming import _optimizer_fits, _schedules_fit, check_resumable


@pytest.fixture
def optimizer():
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


def checkpoint(optimizer):
    return dict(optimizer=copy.deepcopy(optimizer.state_dict()), meta=dict(epoch=1, iter=3, seed=None),
                message_hub=dict(log_scalars=dict(loss=dict(values=[1., float('nan')], counts=[1, 1], max_length=9)),
                                 runtime_info=dict(keep_ckpt_ids=[1], best_score=-1), resumed_keys=dict(loss=True)))


def test_what_training_writes_is_taken(optimizer):
    content = checkpoint(optimizer)
    check_resumable(content)
    assert _optimizer_fits(content['optimizer'], optimizer)
    fresh = torch.optim.AdamW(optimizer.param_groups[0]['params'])
    assert _optimizer_fits(content['optimizer'], fresh) and _optimizer_fits(fresh.state_dict(), optimizer)
    schedule = CosineAnnealingLR(optimizer, T_max=4)
    assert _schedules_fit([copy.deepcopy(schedule.state_dict())], [schedule])
    assert _schedules_fit(None, [schedule]) and _schedules_fit([{}], None)


@pytest.mark.parametrize('change', [
    lambda c: c.update(optimizer='x'),
    lambda c: c['optimizer'].update(state=[1]),
    lambda c: c['optimizer'].update(param_groups='\udcff'),
    lambda c: c['optimizer'].update(param_groups=[3]),
    lambda c: c['optimizer']['state'][0].update(step=['..'] * 50),
    lambda c: c['optimizer']['state'][0].update(step=float('nan')),
    lambda c: c['optimizer']['state'][0].update(exp_avg=None),
    lambda c: c['optimizer']['state'].update({0: {'type': 'x'}}),
    lambda c: c['optimizer']['state'][1].pop('step'),
    lambda c: c.update(message_hub=1),
    lambda c: c.pop('message_hub'),
    lambda c: c['message_hub'].update(resumed_keys="'; DROP TABLE clips; --"),
    lambda c: c['message_hub'].update(resumed_keys=dict(dataset_meta=10**400)),
    lambda c: c['message_hub'].update(log_scalars=[]),
    lambda c: c['message_hub'].pop('runtime_info'),
    lambda c: c['message_hub']['runtime_info'].update(best_score='x'),
    lambda c: c['message_hub']['runtime_info'].update({'best_score_t2v/R@1': float('nan')}),  # nothing is better
    lambda c: c['message_hub'].update(log_scalars=dict(loss=dict(values=['x'], counts=[1], max_length=1))),
    lambda c: c['message_hub'].update(log_scalars=dict(loss=dict(values=[1.], counts=[None], max_length=1))),
    lambda c: c['message_hub'].update(log_scalars=dict(loss=3)),
    lambda c: c['meta'].update(epoch=-1),
    lambda c: c['meta'].update(iter=10**400),
    lambda c: c['meta'].update(seed='x'),
])
def test_values_of_another_kind_are_refused(optimizer, change):
    content = checkpoint(optimizer)
    change(content)
    with pytest.raises(CheckpointError, match='cannot be resumed from: its .* is malformed'):
        check_resumable(content)


@pytest.mark.parametrize('change', [
    lambda s: s['param_groups'][0].update(lr='fast'),
    lambda s: s['param_groups'][0].update(lr=None),
    lambda s: s['param_groups'][0].update(lr=float('inf')),
    lambda s: s['param_groups'][0].update(eps=10**400),
    lambda s: s['param_groups'][0].update(betas=(0.9, 'x')),
    lambda s: s['param_groups'][0].update(betas=0.9),
    lambda s: s['param_groups'][0].update(params=[0]),
    lambda s: s['param_groups'][0].update(params=[0, torch.zeros(3)]),
    lambda s: s['param_groups'][0].update(params=[False, True]),
    lambda s: s['param_groups'][0].update(params=[1, 0]),
    lambda s: s['param_groups'].append(s['param_groups'][0]),
    lambda s: s['state'][0].update(exp_avg=torch.zeros(5)),
    lambda s: s['state'].update({7: s['state'].pop(1)}),
])
def test_a_state_that_is_not_of_this_optimizer_is_refused(optimizer, change):
    state = copy.deepcopy(optimizer.state_dict())
    change(state)
    assert not _optimizer_fits(state, optimizer)


@pytest.mark.parametrize('change', [dict(T_max='x'), dict(last_step=None), dict(step=3), dict(base_values=['x']),
                                    dict(__class__=1)])
def test_a_state_that_is_not_of_this_schedule_is_refused(optimizer, change):
    schedule = CosineAnnealingLR(optimizer, T_max=4)
    assert not _schedules_fit([{**schedule.state_dict(), **change}], [schedule])
    assert not _schedules_fit([], [schedule]) and not _schedules_fit([schedule.state_dict()] * 2, [schedule])
    assert not _schedules_fit(['x'], [schedule]) and not _schedules_fit({}, [schedule])
