"""Hook that keeps a moving average of the trainable parameters."""
from collections import OrderedDict

import torch
from mmengine.hooks import Hook
from torch import Tensor

from vop_mm.models.tuning import trainable_parameters
from vop_mm.registry import HOOKS

from ..checkpoint import match, naming


@HOOKS.register_module()
class TrainableEMAHook(Hook):
    """Hook that evaluates and saves an exponential moving average of the trainable parameters.

    After every optimizer step, ``average <- (1 - momentum) * average + momentum * parameters``. Validation, and with it
    the choice of the best checkpoint, uses the average, and the ``state_dict`` of every checkpoint holds it;
    checkpoints to resume from also keep the parameters themselves. (MMEngine's ``EMAHook`` averages a copy of the whole
    model, including the frozen backbone.)

    Args:
        momentum (float): Weight of the newest parameters, more than 0 and at most 1. Defaults to 0.01.

    Raises:
        ValueError: ``momentum`` is out of range.

    Examples:
        >>> custom_hooks = [dict(type='SetEpochHook'), dict(type='TrainableEMAHook', momentum=0.02)]
    """
    # after the checkpoint hook, which saves the best while the model still holds the average
    priority = 'LOWEST'

    def __init__(self, momentum: float = 0.01) -> None:
        if not 0 < momentum <= 1:
            raise ValueError(f'momentum must be more than 0 and at most 1, got {momentum}')
        self.momentum = momentum
        # the average, or the parameters while the model holds the average
        self._other: dict[str, Tensor] | None = None
        self._swapped = False

    def before_train(self, runner) -> None:
        """Start from the current parameters, or from a resumed average."""
        start = self._other or _parameters(runner)
        self._other = {name: start[name].detach().to(p.device, p.dtype, copy=True)
                         for name, p in _parameters(runner).items()}

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Update the average, except between the steps of an accumulated gradient."""
        if runner.optim_wrapper.should_update():
            for name, parameter in _parameters(runner).items():
                self._other[name].lerp_(parameter, self.momentum)

    def before_val_epoch(self, runner) -> None:
        self._swap(runner)

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        self._swap(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Save the average as the checkpoint's tensors and, in checkpoints to resume from, the parameters as well."""
        inside = checkpoint['state_dict']
        outside = OrderedDict(inside, **{name: value.cpu().clone() for name, value in self._other.items()})
        checkpoint['state_dict'], parameters = (inside, outside) if self._swapped else (outside, inside)
        if 'optimizer' in checkpoint:
            checkpoint['not_averaged'] = parameters

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the average from a checkpoint to resume from, and restore the parameters."""
        if runner.resuming and 'not_averaged' in checkpoint:
            self._other = checkpoint['state_dict']
            checkpoint['state_dict'] = checkpoint.pop('not_averaged')
            with naming(runner.loaded):
                # the checkpoint hook has already checked the average
                match(checkpoint, getattr(runner.model, 'module', runner.model))

    @torch.no_grad()
    def _swap(self, runner) -> None:
        if self._other is None:  # validation without training
            return
        for name, parameter in _parameters(runner).items():
            kept = parameter.clone()
            parameter.copy_(self._other[name])
            self._other[name].copy_(kept)
        self._swapped = not self._swapped


def _parameters(runner) -> dict[str, Tensor]:
    return trainable_parameters(getattr(runner.model, 'module', runner.model))
