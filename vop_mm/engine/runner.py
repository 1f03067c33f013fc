"""MMEngine's runner, adapted to models that are mostly or entirely frozen."""
import os

import torch
import torch.distributed as torch_dist
from mmengine.evaluator import Evaluator
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from vop_mm.registry import RUNNERS
from vop_mm.utils.dist import init_gloo

from .locked_training import LockedTraining
from .safe_loading import SafeLoading
from .shared_memory import check_shared_memory
from .start_of_log import (
    check_loop,
    log_caption_epochs,
    log_environment,
    log_global_batch,
    log_what_trains,
    refuse_layers_without_prompts,
    warn_of_schedules,
)


@RUNNERS.register_module()
class RetrievalRunner(LockedTraining, SafeLoading, Runner):
    """MMEngine's ``Runner``, adapted to text-video retrieval.

    It differs in the following:

    * without CUDA, the processes of a launcher communicate over gloo (MMEngine's setup calls CUDA);
    * a model in which nothing trains (zero-shot) is not wrapped for distributed training, which would raise an error;
    * the log starts with the trainable parameters, the global batch size and warnings: about a learning rate meant for
      another batch size, a schedule that does not end with training, layers without a prompt. If the method promises
      prompts in all layers, layers without one are an error;
    * evaluation uses the similarity of the model's head;
    * checkpoints are read as data, wherever they come from (:mod:`vop_mm.engine.safe_loading`);
    * a second training in the same work directory is refused (:class:`LockedTraining`).
    """

    def setup_env(self, env_cfg: dict) -> None:
        if self.distributed and not torch_dist.is_initialized() and not torch.cuda.is_available():
            init_gloo(self.launcher, env_cfg.get('dist_cfg', {}).get('timeout'))
        super().setup_env(env_cfg)

    def _log_env(self, env_cfg: dict) -> None:
        log_environment(self.logger, self.cfg, self.work_dir, self.seed, self.launcher, self.world_size)

    def get_hooks_info(self) -> str:
        return ', '.join(type(hook).__name__ for hook in self.hooks)

    @staticmethod
    def build_dataloader(*args, **kwargs) -> DataLoader:
        loader = Runner.build_dataloader(*args, **kwargs)
        check_shared_memory(loader)
        return loader

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        model = super().build_model(model)
        log_what_trains(self.logger, model, self.cfg)
        return model

    def train(self) -> nn.Module:
        refuse_layers_without_prompts(self.model, self.cfg)
        return super().train()

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        loop = super().build_train_loop(loop)
        check_loop(self.logger, loop, self.cfg.get('val_cfg') is not None)
        return loop

    def build_param_scheduler(self, scheduler: list | dict) -> list | dict:
        schedulers = super().build_param_scheduler(scheduler)
        warn_of_schedules(self.logger, schedulers, self.train_loop)
        return schedulers

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        trains = any(p.requires_grad for p in model.parameters())
        if is_model_wrapper(model) or not self.distributed or (trains and model_wrapper_cfg is not None):
            return super().wrap_model(model_wrapper_cfg, model)
        if torch.cuda.is_available():
            device = torch.device('cuda', int(os.environ['LOCAL_RANK']))
        else:
            device = torch.device('cpu')
        model = model.to(device)
        if not trains:
            return model
        return MMDistributedDataParallel(
            module=model,
            device_ids=[device.index] if device.type == 'cuda' else None,
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get('find_unused_parameters', False))

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        evaluator = super().build_evaluator(evaluator)
        give_head(evaluator, getattr(self.model, 'module', self.model))
        return evaluator

    def scale_lr(self, optim_wrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate if requested (see :meth:`mmengine.runner.Runner.scale_lr`) and log the result."""
        asked = optim_wrapper.get_lr()['lr'][0]
        super().scale_lr(optim_wrapper, auto_scale_lr)
        accumulated = (self.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
        log_global_batch(self.logger, asked, optim_wrapper.get_lr()['lr'][0], auto_scale_lr, self.world_size,
                         self.train_dataloader.batch_size, accumulated)
        log_caption_epochs(self.logger, self.train_loop, accumulated)


def give_head(evaluator: Evaluator, model: nn.Module) -> None:
    """Make an evaluator's metrics use the similarity of a model's head.

    Args:
        evaluator (Evaluator): Evaluator; its metrics with a ``use_head`` method receive the head.
        model (nn.Module): A retriever; models without a head change nothing.
    """
    for metric in evaluator.metrics:
        if hasattr(metric, 'use_head') and hasattr(model, 'head'):
            metric.use_head(model.head)
