"""Stops a run that has nothing more to learn from."""
import math

from mmengine.hooks import Hook

from vop_mm.registry import HOOKS


@HOOKS.register_module()
class CheckInvalidLossHook(Hook):
    """Ends training at a loss that is infinite or not a number, before anything of it is saved.

    It looks at every step, at the value that MMEngine has fetched for the log: no other wait for the device.
    """

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Look at the step's loss.

        Raises:
            FloatingPointError: It is infinite or not a number.
        """
        loss = runner.message_hub.get_scalar('train/loss').current()
        if not math.isfinite(loss):
            last = runner.message_hub.get_info('last_ckpt', None)
            kept = f'the last checkpoint, {last}, is from before' if last else 'no checkpoint was written'
            raise FloatingPointError(
                f'the loss is {loss} at step {batch_idx + 1} of epoch {runner.epoch + 1}: {kept}. A smaller learning '
                'rate (optim_wrapper.optimizer.lr), clipped gradients (optim_wrapper.clip_grad.max_norm) or bfloat16 '
                'in place of float16 may help')
