"""The optimiser holds what trains, and nothing else."""
from functools import partial

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from vop_mm.models.tuning import trainable_parameters
from vop_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Builds the optimiser over the parameters that train. MMEngine's default hands it the frozen ones too.

    With ``paramwise_cfg`` MMEngine's own rules decide on groups, and the frozen parameters are taken out of them. Where
    gradients are clipped, their norm is logged without a wait for the device.

    Raises:
        ValueError: Nothing trains.
    """

    def __call__(self, model: nn.Module):
        """Build the optimiser wrapper.

        Args:
            model (nn.Module): A retriever, or its distributed wrapper.

        Returns:
            OptimWrapper: Over the trainable parameters.
        """
        model = getattr(model, 'module', model)
        trainable = list(trainable_parameters(model).values())
        if not trainable:
            raise ValueError('nothing trains in this model: evaluate it with tools/test.py')
        optimizer_cfg = self.optimizer_cfg.copy()
        if self.paramwise_cfg:
            groups: list[dict] = []
            self.add_params(groups, model)
            optimizer_cfg['params'] = [g for g in groups if all(p.requires_grad for p in g['params'])]
        else:
            optimizer_cfg['params'] = trainable
        wrapper_cfg = self.optim_wrapper_cfg.copy()
        wrapper = OPTIM_WRAPPERS.build(wrapper_cfg, default_args=dict(optimizer=OPTIMIZERS.build(optimizer_cfg)))
        wrapper._clip_grad = partial(_clip_grad, wrapper)
        return wrapper


def _clip_grad(wrapper: OptimWrapper) -> None:
    # MMEngine's own waits at every step for the norm of the gradients, to log it. The message hub takes it as it is.
    parameters = [p for group in wrapper.optimizer.param_groups for p in group['params'] if p.grad is not None]
    if parameters:
        norm = wrapper.clip_func(parameters, **wrapper.clip_grad_kwargs)
        if norm is not None:  # clipped by value
            wrapper.message_hub.update_scalar(f'train/{wrapper.grad_name}', norm)
