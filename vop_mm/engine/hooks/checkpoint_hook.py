"""Saves the trainable part, whole or not at all."""
import os.path as osp
import re

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from torch import nn

from vop_mm.registry import HOOKS
from vop_mm.utils.files import atomic_write, remove_leftovers

from ..checkpoint import match, naming, pack, unpack
from ..resuming import check_resumable


@HOOKS.register_module()
class TrainableCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook for models most of which is frozen.

    * a checkpoint holds what trains, and what it belongs to (see :mod:`vop_mm.engine.checkpoint`);
    * it is plain, so that it is read back with ``weights_only=True``;
    * it is written beside and renamed, and older ones are removed only then: killed at any moment, the work directory
      holds a whole checkpoint;
    * one that was made on another CLIP, or by another method, is refused;
    * where gradients are accumulated, an epoch ends with a step of the optimiser: a checkpoint owes no half gradient.

    Args:
        rule (str): How ``save_best`` compares. Defaults to ``'greater'``, right for recalls.
        **kwargs: As in :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(self, rule: str = 'greater', **kwargs) -> None:
        if kwargs.get('save_best') is None:
            rule = None
        kwargs.setdefault('backend_args', dict(backend='atomic'))
        super().__init__(rule=rule, **kwargs)

    def before_train(self, runner) -> None:
        """Prepare, and remove what a killed run had half written."""
        super().before_train(runner)
        if is_main_process():
            for folder in {self.out_dir, runner.work_dir}:
                remove_leftovers(folder)

        # what is removed when there is a better one: a path from the checkpoint that was resumed from
        if self.save_best is not None and len(self.key_indicators) == 1:
            self.best_ckpt_path = self._own(self.best_ckpt_path)
        elif self.save_best is not None:
            self.best_ckpt_path_dict = {key: self._own(path) for key, path in self.best_ckpt_path_dict.items()}

    def _own(self, path: str | None) -> str | None:
        """A path if it is that of a best checkpoint in this run's folder."""
        if not isinstance(path, str) or not re.fullmatch(r'best_.+\.pth', osp.basename(path)):
            return None
        return path if osp.realpath(osp.dirname(path)) == osp.realpath(self.out_dir) else None

    def before_train_epoch(self, runner) -> None:
        """Count accumulated steps within the epoch; the last ones may be fewer, and are averaged over as many."""
        if self.by_epoch:
            runner.optim_wrapper.initialize_count_status(runner.model, 0, len(runner.train_dataloader))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what trains, as plain values."""
        pack(checkpoint, _model(runner), runner.cfg)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse another model's checkpoint, or one that can't be resumed from; give MMEngine its objects back."""
        with naming(runner._load_from):
            if runner._resume and not runner._has_loaded:
                check_resumable(checkpoint, runner)
            match(checkpoint, _model(runner))
            unpack(checkpoint)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        # MMEngine removes the outdated checkpoint, then writes the new one, then last_checkpoint in place.
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
        # Here too MMEngine removes first: its removals are kept back until the new file is there. And it writes the
        # epoch's checkpoint a second time, with what is best now; a resumed run finds that out by itself, whether or
        # not it was killed in between (ValidateOnResumeHook).
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
    """A storage backend that only notes what it is told to remove."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self.paths = []

    def remove(self, path: str) -> None:
        self.paths.append(path)

    def rmtree(self, path: str) -> None:
        """No checkpoint of ours is a folder."""

    def __getattr__(self, name: str):
        return getattr(self._backend, name)


def _model(runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
