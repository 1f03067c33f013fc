"""Optimizer constructor that passes only trainable parameters to the optimizer."""
import logging
from collections import Counter

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from vop_mm.models.tuning import trainable_parameters
from vop_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

_RULES = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult',
          'dcn_offset_lr_mult', 'bypass_duplicate')  # rules of MMEngine's constructor


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Constructor of an optimizer over the trainable parameters; MMEngine's default includes the frozen ones.

    With ``paramwise_cfg``, MMEngine's rules determine the parameter groups, which are logged in one line.

    Raises:
        ValueError: Nothing trains, ``paramwise_cfg`` has an unknown rule, or a rule for parameters that don't train.
    """

    def __call__(self, model: nn.Module):
        """Build the optimizer wrapper.

        Args:
            model (nn.Module): A retriever, or its distributed wrapper.

        Returns:
            OptimWrapper: Wrapper over the trainable parameters.
        """
        model = getattr(model, 'module', model)
        trainable = trainable_parameters(model)
        if not trainable:
            raise ValueError('the model has no trainable parameters: evaluate it with tools/test.py')
        optimizer_cfg = self.optimizer_cfg.copy()
        if self.paramwise_cfg:
            self._check_rules(list(trainable))
            optimizer_cfg['params'] = self._groups(model)
        else:
            optimizer_cfg['params'] = list(trainable.values())
        optimizer = OPTIMIZERS.build(optimizer_cfg)
        for key, rule in self.paramwise_cfg.get('custom_keys', {}).items() if self.paramwise_cfg else ():
            if unknown := rule.keys() - {'lr_mult', 'decay_mult', *optimizer.defaults}:
                raise ValueError(f'unknown setting {sorted(unknown)[0]!r} of {key!r} in paramwise_cfg.custom_keys; it '
                                 f'takes lr_mult, decay_mult, and settings of {type(optimizer).__name__}')
        wrapper_cfg = self.optim_wrapper_cfg.copy()
        return OPTIM_WRAPPERS.build(wrapper_cfg, default_args=dict(optimizer=optimizer))

    def _check_rules(self, trainable: list[str]) -> None:
        unknown = sorted(self.paramwise_cfg.keys() - set(_RULES))
        if unknown:
            raise ValueError(f'unknown rule {unknown[0]!r} in paramwise_cfg; the rules are {", ".join(_RULES)}')
        for key in self.paramwise_cfg.get('custom_keys', {}):
            if not any(key in name for name in trainable):
                raise ValueError(f'no trainable parameter matches {key!r} of paramwise_cfg.custom_keys; they are '
                                 f'{", ".join(trainable[:3])}{", ..." if len(trainable) > 3 else ""}')

    def _groups(self, model: nn.Module) -> list[dict]:
        groups: list[dict] = []
        logger = MMLogger.get_current_instance()
        logger.addFilter(_is_of_no_parameter)  # MMEngine logs a line for each parameter, frozen or not
        try:
            self.add_params(groups, model)
        finally:
            logger.removeFilter(_is_of_no_parameter)
        kinds = Counter(', '.join(f'{key} {value}' for key, value in group.items() if key != 'params') or 'the defaults'
                        for group in groups)
        logger.info(f'paramwise_cfg: {"; ".join(f"{n} tensors with {kind}" for kind, n in kinds.items())}')
        return groups


def _is_of_no_parameter(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not ('is skipped since its requires_grad' in message or message.startswith('paramwise_options'))
