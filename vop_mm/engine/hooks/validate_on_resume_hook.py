"""Hook that repeats the validation in which a run was killed."""
from mmengine.hooks import Hook

from vop_mm.registry import HOOKS


@HOOKS.register_module()
class ValidateOnResumeHook(Hook):
    """Hook that validates a resumed model first if its epoch is one that is validated.

    A checkpoint is written right after an epoch, before its validation. A run that was killed in between would continue
    without the validation and might miss the best checkpoint; the result of a validation is first stored in the next
    epoch's checkpoint. The validation is therefore repeated, and the run ends with the same result as an uninterrupted
    one.
    """
    # after the hooks that prepare for training: they take part in a validation
    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        """Validate if the checkpoint comes from an epoch that is validated at its end."""
        loop = runner.train_loop
        if not runner.resumed or runner.val_loop is None or not 0 < loop.epoch:
            return
        loop._decide_current_val_interval()
        if loop.epoch >= loop.val_begin and (loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs):
            runner.logger.info(f'Validating epoch {loop.epoch} again')
            runner.val_loop.run()
