"""Fully sharded training: every process holds a shard of the parameters, their gradients and the optimizer state."""
import time
import warnings
from collections.abc import Callable
from functools import partial

import mmengine
import torch
from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.utils import digit_version
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy

from vop_mm.engine.checkpoint import trainable_shapes
from vop_mm.engine.start_of_log import log_global_batch
from vop_mm.registry import STRATEGIES
from vop_mm.utils.dist import init_gloo
from vop_mm.utils.files import atomic_write

_WRAPPED = '_fsdp_wrapped_module.'


@STRATEGIES.register_module()
class RetrievalFSDPStrategy(FSDPStrategy):
    """MMEngine's ``FSDPStrategy``, adapted to the retriever and to the checkpoints of this project.

    * Each residual block of either encoder is an FSDP unit; everything else (embeddings, projections, prompts) belongs
      to the outermost unit. The logit scale and the bias of backbone or loss, scalars, are replicated in every process:
      the loss and its gradient are those of the whole batch everywhere.
    * A checkpoint, including the optimizer state, equals that of a run with one process: it is gathered, written
      completely or not at all, and can be resumed from with any number of processes, with or without this strategy.
    * Gradients are clipped by the norm over all shards.
    * It runs without CUDA, over gloo.

    Args:
        model_wrapper (dict, optional): Arguments of ``MMFullyShardedDataParallel`` that differ from the above, such as
            ``dict(sharding_strategy='SHARD_GRAD_OP')``. Defaults to None.
        **kwargs: Arguments of :class:`mmengine._strategy.DDPStrategy`.

    Raises:
        ValueError: There is no launcher: a single process has nothing to shard.
        RuntimeError: There is no GPU, and torch is older than 2.4.
    """

    def __init__(self, *, model_wrapper: dict | None = None, **kwargs) -> None:
        super().__init__(model_wrapper=model_wrapper, state_dict_cfg='full', **kwargs)
        # torch gathers into buffers that it reuses or frees, and relies on the move to the CPU to make a copy
        for config in (self.state_dict_config, self.optim_state_dict_config):
            config.offload_to_cpu = torch.cuda.is_available()

    def _setup_env(self, *, launcher: str | None = None, **kwargs) -> None:
        if launcher == 'none':
            raise ValueError('FSDP shards a model over processes: start them with tools/dist_train.sh CONFIG GPUS')
        super()._setup_env(launcher=launcher, **kwargs)

    def _setup_distributed(self, launcher: str, **kwargs) -> None:
        if torch.cuda.is_available():
            super()._setup_distributed(launcher, **kwargs)
        elif digit_version(torch.__version__) < digit_version('2.4'):  # older torch gathers with CUDA only
            raise RuntimeError(f'FSDP without a GPU needs torch 2.4 or newer, this is {torch.__version__}')
        else:
            init_gloo(launcher, kwargs.get('timeout'))

    # -- the model --------------------------------------------------------------------------------------------------
    def _wrap_model(self, model: nn.Module) -> nn.Module:
        # shards have other names and shapes than the parameters that checkpoints hold
        model.whole_shapes = trainable_shapes(model)
        model.backbone.fingerprint  # noqa: B018 - computed from whole parameters
        if not model.head.is_cosine and next(model.head.parameters(), None) is not None:
            raise ValueError(f'the head {type(model.head).__name__} has weights of its own, which FSDP would scatter: '
                             'evaluation needs them whole')
        blocks = {id(block) for block in [*model.backbone.vision_blocks, *model.backbone.text_blocks]}
        scalars = (model.backbone.logit_scale, model.backbone.logit_bias, *model.loss_module.parameters())
        replicated = [p for p in scalars if p is not None]
        for parameter in replicated:  # the wrapper does not move parameters that it ignores
            parameter.data = parameter.data.to(get_device())
        self.model_wrapper = dict(
            dict(type='MMFullyShardedDataParallel', use_orig_params=True, backward_prefetch='BACKWARD_PRE',
                 auto_wrap_policy=partial(lambda_auto_wrap_policy, lambda_fn=lambda module: id(module) in blocks),
                 ignored_states=replicated),
            **(self.model_wrapper or {}))
        if not torch.cuda.is_available():
            self.model_wrapper['device_id'] = torch.device('cpu')
        with warnings.catch_warnings():  # torch's warning to MMEngine: set_state_dict_type has a successor
            warnings.simplefilter('ignore', FutureWarning)
            return super()._wrap_model(model)

    # -- the optimizer ----------------------------------------------------------------------------------------------
    def build_optim_wrapper(self, optim_wrapper: dict, model: nn.Module | None = None):
        """Build the optimizer over this process's shards; see :meth:`mmengine._strategy.FSDPStrategy`.

        Args:
            optim_wrapper (dict): Config of the optimizer wrapper.
            model (nn.Module, optional): The wrapped model.

        Raises:
            ValueError: A key of ``paramwise_cfg.custom_keys`` names something inside one block by its whole path.
        """
        place, names = {name: i for i, name in enumerate(self.id_to_name.values())}, _names(model)
        for key in (optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys', {}):
            if any(key in name for name in place) and not any(key in name for name, _ in model.named_parameters()):
                raise ValueError(f'the key {key!r} of paramwise_cfg reaches into a block, which FSDP wraps: name the '
                                 'block, or what is in it')
        built = super().build_optim_wrapper(optim_wrapper, model)
        # the wrapper reorders parameters; checkpoints number them in the original order
        groups = built.optimizer.param_groups
        for group in groups:
            group['params'].sort(key=lambda p: place[names[id(p)]])
        groups.sort(key=lambda group: place[names[id(group['params'][0])]])
        if getattr(built, 'clip_func', None) is nn.utils.clip_grad_norm_:
            built.clip_func = lambda parameters, **kwargs: model.clip_grad_norm_(**kwargs)
            # called by all processes, including one whose shards hold no trainable parameter
            built._clip_grad = lambda: built.clip_func([], **built.clip_grad_kwargs)
        return built

    def _scale_lr(self) -> None:
        asked = self.optim_wrapper.get_lr()['lr'][0]
        super()._scale_lr()
        log_global_batch(self.logger, asked, self.optim_wrapper.get_lr()['lr'][0], self._auto_scale_lr, self.world_size,
                         self.dispatch_kwargs['train_micro_batch_size_per_gpu'],
                         self.optim_wrapper._accumulative_counts)

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def optim_state_dict(self) -> dict:
        """Return the optimizer state as a single process has it: parameters are numbered, tensors are whole.

        Returns:
            dict: ``state, param_groups``, on the CPU of the main process; empty in other processes.
        """
        gathered = FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        if not gathered:
            return gathered
        groups = self._names_in_groups()
        number = {name: i for i, name in enumerate(name for names in groups for name in names)}
        own = self.optim_wrapper.state_dict()
        return dict(own, state=dict(sorted((number[name], state) for name, state in gathered['state'].items())),
                    param_groups=[dict(group, params=[number[name] for name in names])
                                  for group, names in zip(own['param_groups'], groups, strict=True)])

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load this process's shards of an optimizer state.

        Args:
            state_dict (dict): State from :meth:`optim_state_dict`, or saved by a run with one process.
        """
        groups = self._names_in_groups()
        names = [name for group in groups for name in group]
        named = dict(state={names[i]: state for i, state in state_dict['state'].items()},
                     param_groups=[dict(group, params=list(own))
                                   for group, own in zip(state_dict['param_groups'], groups, strict=True)])
        shards = FullyShardedDataParallel.optim_state_dict_to_load(self.model, self.optim_wrapper.optimizer, named)
        self.optim_wrapper.load_state_dict(dict(state_dict, **shards))

    def _names_in_groups(self) -> list[list[str]]:
        names = _names(self.model)
        return [[names[id(p)] for p in group['params']] for group in self.optim_wrapper.optimizer.param_groups]

    def save_checkpoint(self, filename: str, *, save_optimizer: bool = True, save_param_scheduler: bool = True,
                        extra_ckpt: dict | None = None, callback: Callable | None = None) -> None:
        """Gather a checkpoint in the main process, which writes it completely or not at all.

        All processes must call this method.

        Args:
            filename (str): File to write.
            save_optimizer (bool): Save the optimizer state. Defaults to True.
            save_param_scheduler (bool): Save the state of the schedulers. Defaults to True.
            extra_ckpt (dict, optional): Additional content. Defaults to None.
            callback (Callable, optional): Called with the checkpoint before it is written. Defaults to None.
        """
        checkpoint = dict(extra_ckpt or {}, state_dict=self.model.state_dict())
        if save_optimizer and hasattr(self, 'optim_wrapper'):
            checkpoint['optimizer'] = self.optim_state_dict()
        if save_param_scheduler and hasattr(self, 'param_schedulers'):
            checkpoint['param_schedulers'] = self.scheduler_state_dict()
        checkpoint['meta'] = dict(checkpoint.get('meta', {}), seed=self.seed, time=time.strftime('%Y%m%d_%H%M%S'),
                                  mmengine_version=mmengine.__version__)
        if callback is not None:
            callback(checkpoint)
        if is_main_process():
            with atomic_write(filename) as file:
                torch.save(checkpoint, file)

    def resume(self, filename: str, **kwargs) -> dict:
        """Resume, reading the file into host memory; see :meth:`mmengine._strategy.SingleDeviceStrategy.resume`."""
        return super().resume(filename, **dict(kwargs, map_location='cpu'))


def _names(model: nn.Module) -> dict[int, str]:
    """Return the names that parameters had before they were wrapped, by parameter id."""
    return {id(p): name.replace(_WRAPPED, '') for name, p in model.named_parameters()}
