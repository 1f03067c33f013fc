"""Distributed helpers."""
import torch
import torch.distributed as torch_dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes, 1 without a process group."""
    return torch_dist.get_world_size() if torch_dist.is_available() and torch_dist.is_initialized() else 1


def gather_with_grad(x: Tensor) -> Tensor:
    """Concatenate a tensor over all ranks, with the same gradient as in a single process.

    Every rank computes the whole loss from the gathered tensors, and the gradient of a rank's own rows is summed over
    ranks. Averaged over ranks, as data-parallel wrappers do, parameter gradients then equal those of a single process
    with the whole batch. (An all-gather without gradient gives 1/W of it.)

    Args:
        x (Tensor): [n, ...], the same shape on every rank.

    Returns:
        Tensor: [W * n, ...] in rank order; ``x`` itself in a single process.
    """
    return _Gather.apply(x) if world_size() > 1 else x


class _Gather(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        torch_dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        torch_dist.all_reduce(grad)
        start = torch_dist.get_rank() * ctx.rows
        return grad[start:start + ctx.rows]
