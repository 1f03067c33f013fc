"""Functions on several real processes that talk through gloo."""
import os
import tempfile
from collections.abc import Callable

import torch
import torch.distributed as torch_dist

from tests.forks import renew_thread_pool
from vop_mm.utils.cli import leave_process_group


def on_ranks(function: Callable[[], dict], world: int) -> list[dict]:
    """Call a function in so many processes of one group.

    They are forked from this one, so that nothing need be imported again.

    Args:
        function (Callable): Takes nothing; returns what ``torch.load(weights_only=True)`` reads.
        world (int): Number of processes.

    Returns:
        list[dict]: What each rank returned.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(_run, args=(function, world, folder), nprocs=world, start_method='fork')
        return [torch.load(f'{folder}/{rank}.pt', weights_only=True) for rank in range(world)]


def _run(rank: int, function: Callable[[], dict], world: int, folder: str) -> None:
    renew_thread_pool()
    torch_dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world)
    torch.save(function(), os.path.join(folder, f'{rank}.pt'))
    leave_process_group()
