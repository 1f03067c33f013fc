"""Makes up for a validation that a run was killed in."""
from mmengine.hooks import Hook

from vop_mm.registry import HOOKS


@HOOKS.register_module()
class ValidateOnResumeHook(Hook):
    """Validates a resumed model first, if its epoch was one to be validated.

    A checkpoint is written as soon as an epoch has ended, its validation comes after that. A run that was killed in
    between would go on without it, and the best checkpoint could be missed; what the validation found is in no
    checkpoint before the next epoch's. So it is done again, and the run ends with what an undisturbed one ends with.
    """
    # behind the hooks that prepare for training: they take part in a validation
    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        """Validate, if the checkpoint comes from an epoch whose end is validated."""
        loop = runner.train_loop
        if not runner._resume or runner.val_loop is None or not 0 < loop.epoch:
            return
        loop._decide_current_val_interval()
        if loop.epoch >= loop.val_begin and (loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs):
            runner.logger.info(f'epoch {loop.epoch} is validated again')
            runner.val_loop.run()
