"""MMEngine's ``FlexibleRunner``, adapted to text-video retrieval."""
from mmengine._strategy import BaseStrategy
from mmengine.config import Config
from mmengine.runner import BaseLoop, FlexibleRunner, Runner
from torch import nn

from vop_mm.engine.hooks import TrainableEMAHook
from vop_mm.engine.locked_training import LockedTraining
from vop_mm.engine.runner import RetrievalRunner, give_head
from vop_mm.engine.safe_loading import SafeLoading
from vop_mm.engine.start_of_log import (
    check_loop,
    log_caption_epochs,
    log_environment,
    log_what_trains,
    refuse_layers_without_prompts,
    warn_of_schedules,
)
from vop_mm.registry import RUNNERS


@RUNNERS.register_module()
class FlexibleRetrievalRunner(LockedTraining, SafeLoading, FlexibleRunner):
    """MMEngine's ``FlexibleRunner``, which delegates the model and its distribution to a ``strategy``.

    The start of the log, evaluation, loading of checkpoints and the lock on the work directory are the same as in
    :class:`~vop_mm.engine.runner.RetrievalRunner`.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner | FlexibleRunner:
        """Build the runner; in a single process there is nothing to shard, and the strategy is ignored."""
        if cfg.get('launcher', 'none') == 'none':
            cfg.pop('strategy', None)
            cfg.runner_type = RetrievalRunner.__name__
            return RetrievalRunner.from_cfg(cfg)
        return super().from_cfg(cfg)

    def _log_env(self) -> None:
        log_environment(self.logger, self.cfg, self.work_dir, self.seed, self.strategy.launcher, self.world_size)

    def get_hooks_info(self) -> str:
        """Return the names of the hooks, in one line."""
        return ', '.join(type(hook).__name__ for hook in self.hooks)

    build_dataloader = staticmethod(RetrievalRunner.build_dataloader)

    def build_strategy(self, *args, **kwargs) -> BaseStrategy:
        """Build the strategy; its model and schedulers are checked as in ``RetrievalRunner``."""
        strategy = super().build_strategy(*args, **kwargs)
        build_model, build_param_scheduler = strategy.build_model, strategy.build_param_scheduler

        def check_model(model: nn.Module | dict) -> nn.Module:
            model = build_model(model)
            log_what_trains(self.logger, model, self.cfg)
            for loop in (self._val_loop, self._test_loop):
                if isinstance(loop, BaseLoop):
                    give_head(loop.evaluator, model)
            if isinstance(self._train_loop, BaseLoop):
                refuse_layers_without_prompts(model, self.cfg)
            return model

        def check_schedulers(*args, **kwargs) -> list | dict:
            schedulers = build_param_scheduler(*args, **kwargs)
            warn_of_schedules(self.logger, schedulers, self.train_loop)
            return schedulers

        strategy.build_model, strategy.build_param_scheduler = check_model, check_schedulers
        return strategy

    def build_train_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """Build the training loop and log its length; see :meth:`mmengine.runner.FlexibleRunner.build_train_loop`."""
        loop = super().build_train_loop(loop)
        check_loop(self.logger, loop, self._val_loop is not None)
        log_caption_epochs(self.logger, loop, self.cfg.optim_wrapper.get('accumulative_counts', 1))
        return loop

    def train(self) -> nn.Module:
        """Train; see :meth:`mmengine.runner.FlexibleRunner.train`.

        Returns:
            nn.Module: The trained model.

        Raises:
            ValueError: A hook averages parameters: averages of shards are not gathered for checkpoints.
        """
        if any(isinstance(hook, TrainableEMAHook) for hook in self.hooks):
            raise ValueError('TrainableEMAHook doesn\'t work with FSDP: remove it from custom_hooks')
        return super().train()
