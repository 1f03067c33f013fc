"""Where half precision isn't enough."""
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """A half-precision tensor as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context in which operations on tensors like this one keep their precision."""
    # the meta device, on which models are counted, knows no autocast
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
