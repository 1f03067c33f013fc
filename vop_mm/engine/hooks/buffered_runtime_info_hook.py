"""Hook that keeps the values of training steps on the device until they are logged."""
import math
import os.path as osp

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.optim import OptimWrapper

from vop_mm.registry import HOOKS

_MAX_PENDING = 1000  # values


@HOOKS.register_module()
class BufferedRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook``, which fetches losses and gradient norms only when they are needed.

    MMEngine fetches them at every step: the host waits until the step is done, and then the device waits for the host
    to start the next one. Here, they are fetched in one transfer before a log line, a validation and a checkpoint, and
    added to the message hub then; histories are identical to the bit. Other hooks that read them call :meth:`flush`
    first.

    A loss that is infinite or NaN stops training when it is fetched, before any checkpoint with it is saved.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, torch.Tensor | float]] = []
        self._steps: list[tuple[int, int]] = []  # epoch and batch of each pending loss

    def before_train(self, runner) -> None:
        """Update the information about the run, and take over the logging of gradient norms."""
        super().before_train(runner)
        self.buffer_norms(runner.optim_wrapper)

    def buffer_norms(self, wrapper: OptimWrapper) -> None:
        """Buffer the norms of clipped gradients, which MMEngine would fetch at every update.

        Args:
            wrapper (OptimWrapper): The optimizer's wrapper, modified in place if it clips gradients.
        """
        clip = getattr(wrapper, 'clip_func', None)

        def clip_and_buffer(*args, **kwargs) -> None:
            norm = clip(*args, **kwargs)
            if norm is not None:  # None if clipped by value
                self._pending.append((f'train/{wrapper.grad_name}', _copy(norm)))
        if clip is not None:
            wrapper.clip_func = clip_and_buffer

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Buffer the values of the step, and fetch all of them if the step is logged."""
        self._pending += [(f'train/{key}', _copy(value)) for key, value in (outputs or {}).items()]
        self._steps += [(runner.epoch, batch_idx)] * ('loss' in (outputs or {}))
        if len(self._pending) >= _MAX_PENDING or any(
                _will_log(hook, runner, batch_idx) for hook in runner.hooks if isinstance(hook, LoggerHook)):
            self.flush(runner)

    def after_train_epoch(self, runner) -> None:
        self.flush(runner)

    def before_val(self, runner) -> None:
        self.flush(runner)
        super().before_val(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Fetch all values and add them to the checkpoint."""
        if self._pending:
            self.flush(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def flush(self, runner) -> None:
        """Move all values to the message hub, with one synchronization for each dtype.

        Args:
            runner (Runner): The runner.

        Raises:
            FloatingPointError: A loss is infinite or NaN.
        """
        pending, steps, self._pending, self._steps = self._pending, iter(self._steps), [], []
        alike: dict[tuple, list[torch.Tensor]] = {}
        for _, value in pending:
            if isinstance(value, torch.Tensor):
                alike.setdefault((value.device, value.dtype), []).append(value)
        fetched = {kind: iter(torch.stack(values).tolist()) for kind, values in alike.items()}
        for key, value in pending:
            if isinstance(value, torch.Tensor):
                value = next(fetched[value.device, value.dtype])
            runner.message_hub.update_scalar(key, value)
            if key == 'train/loss':
                _check_loss(runner, value, *next(steps))


def _copy(value: torch.Tensor | float) -> torch.Tensor | float:
    """Copy a tensor, since the next step may overwrite it."""
    return value.detach().reshape(()).clone() if isinstance(value, torch.Tensor) else value


def _will_log(hook: LoggerHook, runner, batch_idx: int) -> bool:
    """Return whether the logger will write a line after this step."""
    steps = len(runner.train_dataloader)
    return (hook.every_n_inner_iters(batch_idx, hook.interval)
            or batch_idx + 1 == steps and (not hook.ignore_last or steps <= hook.interval))


def _check_loss(runner, loss: float, epoch: int, batch_idx: int) -> None:
    if not math.isfinite(loss):
        last = runner.message_hub.get_info('last_ckpt', None)
        kept = last and osp.exists(last) and f'the last checkpoint, {last}, is from before'
        raise FloatingPointError(
            f'the loss is {loss} at step {batch_idx + 1} of epoch {epoch + 1}: {kept or "no checkpoint was written"}. '
            'A smaller learning rate (optim_wrapper.optimizer.lr), clipped gradients '
            '(optim_wrapper.clip_grad.max_norm) or bfloat16 in place of float16 may help')
