"""Checks that training can be resumed from a checkpoint."""
import torch
from mmengine.runner import Runner
from torch.optim import Optimizer

from .checkpoint import CheckpointError

_NOTES = dict(log_scalars=dict, runtime_info=dict, resumed_keys=dict)


def check_resumable(checkpoint: dict, runner: Runner | None = None) -> None:
    """Raise an error if training can't be resumed from a checkpoint.

    MMEngine and torch do not check what they load: an invalid value would only fail somewhere in the next step.

    Args:
        checkpoint (dict): Checkpoint as read from the file.
        runner (Runner, optional): Runner built for training; the checkpoint is compared with its optimizer and
            schedulers. Other kinds of runners, whose optimizer may be sharded, are not compared.

    Raises:
        CheckpointError: The checkpoint has no training state, or is damaged.
    """
    if 'optimizer' not in checkpoint:
        raise CheckpointError('the checkpoint has no optimizer state: resume from an epoch_N.pth')
    runner = runner if isinstance(runner, Runner) else None
    optimizer = getattr(getattr(runner, 'optim_wrapper', None), 'optimizer', None)
    schedules = getattr(runner, 'param_schedulers', None)
    for what, fits in (('run information', _notes_fit(checkpoint)),
                       ('optimizer state', _optimizer_fits(checkpoint['optimizer'], optimizer)),
                       ('scheduler state', _schedules_fit(checkpoint.get('param_schedulers'), schedules))):
        if not fits:
            raise CheckpointError(f'the checkpoint cannot be resumed from: its {what} is malformed or does not fit')


def _notes_fit(checkpoint: dict) -> bool:
    meta, hub = checkpoint['meta'], checkpoint.get('message_hub')
    if not isinstance(hub, dict) or not all(isinstance(hub.get(key), kind) for key, kind in _NOTES.items()):
        return False
    kept = hub['runtime_info'].get('keep_ckpt_ids', [])
    numbers = [meta.get('epoch'), meta.get('iter'), meta.get('seed', 0) or 0,
               *(kept if isinstance(kept, list) else [None])]  # MMEngine removes the checkpoints with these numbers
    # scores that new checkpoints are compared with: a single one, or one per metric
    scores = [value for key, value in hub['runtime_info'].items() if str(key).startswith('best_score')]
    return (all(type(number) is int and 0 <= number < 2**63 for number in numbers)
            and all(isinstance(value, bool) for value in hub['resumed_keys'].values())
            and all(_is_score(score) for score in scores)
            and all(_is_history(history) for history in hub['log_scalars'].values()))


def _is_score(value) -> bool:
    return _is_number(value) or value in (float('inf'), float('-inf'))  # infinite before the first evaluation


def _is_history(history) -> bool:
    if not isinstance(history, dict):
        return False
    values, counts = history.get('values'), history.get('counts')
    return (isinstance(values, list) and all(isinstance(value, (int, float)) for value in values)
            and isinstance(counts, list) and all(isinstance(count, int) for count in counts))


def _optimizer_fits(found, own: Optimizer | None) -> bool:
    """Return whether a state has the right form for an optimizer: values by parameter, and settings like its own."""
    if not isinstance(found, dict):
        return False
    groups, states = found.get('param_groups'), found.get('state')
    if not isinstance(groups, list) or not isinstance(states, dict):
        return False
    if not all(isinstance(group, dict) and isinstance(group.get('params'), list) for group in groups):
        return False
    keys = set()
    for state in states.values():
        if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) or _is_number(v) for v in state.values()):
            return False
        keys.add(frozenset(state))
    if len(keys) > 1 or not isinstance(own, Optimizer):
        return len(keys) <= 1
    if len(groups) != len(own.param_groups):
        return False
    parameters = [parameter for group in own.param_groups for parameter in group['params']]
    numbers = [number for group in groups for number in group['params']]
    return (all(type(number) is int for number in numbers) and numbers == list(range(len(parameters)))
            and all(_is_like(group.get(key), value) for group, mine in zip(groups, own.param_groups)
                    for key, value in mine.items() if key != 'params' and key in group)
            and all(type(number) is int and 0 <= number < len(parameters) for number in states)
            and all(value.shape in ((), parameters[number].shape) for number, state in states.items()
                    for value in state.values() if isinstance(value, torch.Tensor)))


def _schedules_fit(found, own) -> bool:
    if found is None or not isinstance(own, list) or not all(hasattr(schedule, 'state_dict') for schedule in own):
        return True
    return (isinstance(found, list) and len(found) == len(own)  # MMEngine silently ignores a mismatch
            and all(isinstance(state, dict) and _schedule_fits(state, schedule)
                    for state, schedule in zip(found, own)))


def _schedule_fits(state: dict, own) -> bool:
    # MMEngine sets each key as an attribute: one with a method's name would replace the method
    kept = own.state_dict()
    return all(isinstance(key, str) and not hasattr(type(own), key) and (key not in kept or _is_like(value, kept[key]))
               for key, value in state.items())


def _is_like(value, own) -> bool:
    """Return whether a setting has the same type as another one."""
    if isinstance(own, (list, tuple)):
        return isinstance(value, (list, tuple)) and all(_is_like(item, own[0]) for item in value) if own else True
    if _is_number(own):
        return _is_number(value)
    return value is None or isinstance(value, (bool, str)) or _is_number(value)


def _is_number(value) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e300  # excludes NaN
