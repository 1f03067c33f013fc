"""Lock that allows one training at a time in a work directory."""
import os.path as osp
from contextlib import AbstractContextManager, nullcontext, suppress

from mmengine.dist import is_main_process
from torch import nn

from vop_mm.utils.files import atomic_write
from vop_mm.utils.locks import locked


class LockedTraining:
    """Mixin for runners that refuses to train if another process is training in the same work directory.

    The main process holds ``train.lock`` in the work directory; it is released when the process ends, however it ends.
    Evaluation needs no lock, since it writes to its own folder. The config in the work directory always belongs to the
    training that runs there, even if other processes start.
    """

    def train(self) -> nn.Module:
        """Train; see :meth:`mmengine.runner.Runner.train`.

        Returns:
            nn.Module: The trained model.

        Raises:
            BlockingIOError: Another process is training in the work directory.
        """
        with _lock(self.work_dir):
            return super().train()

    def dump_config(self) -> None:
        """Write the config to the work directory atomically; see :meth:`mmengine.runner.Runner.dump_config`."""
        if is_main_process():
            name = osp.basename(self.cfg.filename) if self.cfg.filename else f'{self.timestamp}.py'
            path = osp.join(self.work_dir, name)
            with suppress(BlockingIOError), _lock(self.work_dir), atomic_write(path, 'w') as file:
                file.write(self.cfg.dump())


def _lock(work_dir: str) -> AbstractContextManager:
    if not is_main_process():
        return nullcontext()
    return locked(osp.join(work_dir, 'train.lock'), f'another training is running in {work_dir}: wait for it to end, '
                  'or choose another work directory (--work-dir)')
