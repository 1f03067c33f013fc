"""Mixed precision without loss scaling."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner.amp import autocast
from torch import nn

from vop_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs forward passes under autocast, in bfloat16 by default, on a GPU or a CPU.

    MMEngine's ``AmpOptimWrapper`` does not support a CPU, and scales losses, which bfloat16 doesn't need.

    Args:
        dtype (str): Name of a torch dtype. Defaults to ``'bfloat16'``.
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper`.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs) -> None:
        super().__init__(**kwargs)
        self.dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast, with MMEngine's handling of gradient accumulation."""
        with super().optim_context(model), autocast(dtype=self.dtype):
            yield
