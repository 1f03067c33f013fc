"""Higher precision where half precision is not enough."""
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return a half-precision tensor as float32; float32 and float64 are unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Return a context manager in which operations on this tensor's device keep their precision."""
    # the meta device, used for counting, doesn't support autocast
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
