"""Hook that stops training at an invalid loss."""
import math

from mmengine.hooks import Hook

from vop_mm.registry import HOOKS


@HOOKS.register_module()
class CheckInvalidLossHook(Hook):
    """Hook that stops training at a loss that is infinite or NaN, before any checkpoint with it is saved.

    Training steps do not wait for the device: all losses are checked when they are fetched for a log line, and the
    first bad step is named. Before a validation and before a checkpoint is written, pending losses are fetched.
    """
    # after the logger, which has losses fetched, and before the hook that saves
    priority = 'LOW'

    def __init__(self) -> None:
        self._steps: list[tuple[int, int]] = []  # epoch and batch of the losses not checked yet

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Check the losses that have been fetched.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Index of the batch.
            data_batch (dict, optional): Ignored.
            outputs (dict, optional): Ignored.

        Raises:
            FloatingPointError: A loss is infinite or NaN.
        """
        self._steps.append((runner.epoch, batch_idx))
        waits_for = getattr(runner.message_hub, 'waits_for', None)  # MMEngine's own hub has fetched everything
        if waits_for is None or not waits_for('train/loss'):
            self._check(runner)

    def after_train_epoch(self, runner) -> None:
        """Check all losses; raises as :meth:`after_train_iter`."""
        self._check(runner)

    def before_val(self, runner) -> None:
        """Check all losses; raises as :meth:`after_train_iter`."""
        self._check(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check all losses; raises as :meth:`after_train_iter`."""
        self._check(runner)

    def _check(self, runner) -> None:
        steps, self._steps = self._steps, []
        if not steps:
            return
        losses = runner.message_hub.get_scalar('train/loss').data[0][-len(steps):]
        for (epoch, batch_idx), loss in zip(steps[-len(losses):], losses, strict=True):
            if not math.isfinite(loss):
                last = runner.message_hub.get_info('last_ckpt', None)
                kept = f'the last checkpoint, {last}, is from before' if last else 'no checkpoint was written'
                raise FloatingPointError(
                    f'the loss is {loss} at step {batch_idx + 1} of epoch {epoch + 1}: {kept}. A smaller learning '
                    'rate (optim_wrapper.optimizer.lr), clipped gradients (optim_wrapper.clip_grad.max_norm) or '
                    'bfloat16 in place of float16 may help')
