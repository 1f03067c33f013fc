"""Hook that saves the trainable part of a model atomically."""
import os.path as osp
import re

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from vop_mm.registry import HOOKS
from vop_mm.utils.files import atomic_write, remove_leftovers

from ..checkpoint import match, naming, pack, unpack
from ..resuming import check_resumable


@HOOKS.register_module()
class TrainableCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook, adapted to models that are mostly frozen.

    * A checkpoint holds the trainable parameters and a description of their model (see
      :mod:`vop_mm.engine.checkpoint`).
    * It contains plain values only, so that it can be read with ``weights_only=True``.
    * It is written to a temporary file and renamed, and older ones are removed only then: the work directory holds a
      complete checkpoint even if the run is killed at any moment.
    * Checkpoints of another CLIP or another method are rejected.
    * With accumulated gradients, an epoch ends with an optimizer step, so no partial gradient is lost in a checkpoint.

    Args:
        rule (str): How ``save_best`` compares. Defaults to ``'greater'``, which is right for recalls.
        **kwargs: Arguments of :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(self, rule: str = 'greater', **kwargs) -> None:
        if kwargs.get('save_best') is None:
            rule = None
        kwargs.setdefault('backend_args', dict(backend='atomic'))
        super().__init__(rule=rule, **kwargs)

    def before_train(self, runner) -> None:
        """Prepare for training, and remove the incomplete files of a killed run."""
        super().before_train(runner)
        if is_main_process():
            for folder in {self.out_dir, runner.work_dir}:
                remove_leftovers(folder)

        # file to remove when there is a better one; its path comes from the checkpoint that was resumed from
        if self.save_best is not None and len(self.key_indicators) == 1:
            self.best_ckpt_path = self._own(self.best_ckpt_path)
        elif self.save_best is not None:
            self.best_ckpt_path_dict = {key: self._own(path) for key, path in self.best_ckpt_path_dict.items()}

    def _own(self, path: str | None) -> str | None:
        """Return the path if it is a best checkpoint in this run's folder, otherwise None."""
        if not isinstance(path, str) or not re.fullmatch(r'best_.+\.pth', osp.basename(path)):
            return None
        return path if osp.realpath(osp.dirname(path)) == osp.realpath(self.out_dir) else None

    def before_train_epoch(self, runner) -> None:
        """Count accumulated steps within the epoch; the last group may be smaller and is averaged accordingly."""
        if self.by_epoch:
            runner.optim_wrapper.initialize_count_status(runner.model, 0, len(runner.train_dataloader))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep only the trainable parameters, as plain values."""
        pack(checkpoint, getattr(runner.model, 'module', runner.model), runner.cfg)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check that a loaded checkpoint matches the model and can be resumed from, and restore MMEngine's objects."""
        with naming(runner.loaded):
            if runner.resuming:
                check_resumable(checkpoint, runner)
            match(checkpoint, getattr(runner.model, 'module', runner.model))
            unpack(checkpoint)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        # MMEngine removes the outdated checkpoint first, then writes the new one, then overwrites last_checkpoint.
        outdated = None
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(self.out_dir, filename, save_optimizer=self.save_optimizer,
                               save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
                               backend_args=self.backend_args, **self.args)
        if not is_main_process():
            return
        with atomic_write(osp.join(runner.work_dir, 'last_checkpoint'), 'w') as file:
            file.write(self.last_ckpt)
        if outdated is not None:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        # Here, too, MMEngine removes first: removals are delayed until the new file exists. It also writes the epoch's
        # checkpoint again with the current best score; a resumed run finds the best score itself
        # (ValidateOnResumeHook), whether or not the run was killed in between.
        backend, self.file_backend = self.file_backend, _Later(self.file_backend)
        last, self.last_ckpt = self.last_ckpt, None
        try:
            super()._save_best_checkpoint(runner, metrics)
            later = self.file_backend.paths
        finally:
            self.file_backend, self.last_ckpt = backend, last
        best = {getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in later:
            if path not in best and backend.isfile(path):
                backend.remove(path)


class _Later:
    """Storage backend that only records the files to remove."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self.paths = []

    def remove(self, path: str) -> None:
        self.paths.append(path)

    def rmtree(self, path: str) -> None:
        """Do nothing: no checkpoint of this project is a folder."""

    def __getattr__(self, name: str):
        return getattr(self._backend, name)
