"""Distributed helpers."""
import os
import subprocess
from datetime import timedelta

import torch
import torch.distributed as torch_dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes, 1 without a process group."""
    return torch_dist.get_world_size() if torch_dist.is_available() and torch_dist.is_initialized() else 1


def init_gloo(launcher: str, timeout: float | None = None) -> None:
    """Set up communication over gloo for the processes of a launcher, if there is no CUDA.

    Args:
        launcher (str): ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        timeout (float, optional): Seconds to wait for other processes; None is torch's default.
    """
    if launcher == 'slurm':
        _take_environment_from_slurm()
    torch_dist.init_process_group('gloo', timeout=timedelta(seconds=timeout) if timeout else None)


def _take_environment_from_slurm() -> None:
    """Set the variables of torch's environment setup from Slurm's; the launch script sets MASTER_ADDR."""
    os.environ.setdefault('RANK', os.environ['SLURM_PROCID'])
    os.environ.setdefault('WORLD_SIZE', os.environ['SLURM_NTASKS'])
    os.environ.setdefault('LOCAL_RANK', os.environ['SLURM_LOCALID'])
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        nodes = subprocess.run(['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']], capture_output=True,
                               text=True, check=True)
        os.environ['MASTER_ADDR'] = nodes.stdout.split()[0]


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
