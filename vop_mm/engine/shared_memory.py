"""Check of the shared memory for batches from data loader workers."""
import os

import torch
from torch.utils.data import DataLoader

_FOLDER = '/dev/shm'
_LARGE_ITEM = 2**24  # bytes: if items of this size fit, nothing has to be measured


def check_shared_memory(loader: DataLoader) -> None:
    """Raise an error if the batches of a data loader don't fit into shared memory.

    A worker that runs out of shared memory prints an error and continues, and the process that waits for its batch
    hangs. Containers have 64 MB of shared memory by default.

    Args:
        loader (DataLoader): The data loader; one without workers needs no shared memory. Its first item may be read.

    Raises:
        ValueError: There is less shared memory than the workers may use.
    """
    if not loader.num_workers or not os.path.isdir(_FOLDER):
        return
    status = os.statvfs(_FOLDER)
    free = status.f_bavail * status.f_frsize
    batches = loader.num_workers * loader.prefetch_factor + 1  # one more is in use
    items = batches * (loader.batch_size or 1) * int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if items * _LARGE_ITEM <= free:
        return
    needed = items * _size(loader.dataset[0])
    if needed > free:
        raise ValueError(f'the {loader.num_workers} workers of a data loader may fill {needed / 1e6:,.0f} MB of shared '
                         f'memory, and {_FOLDER} has {free / 1e6:,.0f} MB left: start the container with --shm-size='
                         f'{-(-needed // 2**30) + 1}g, or set num_workers of train_dataloader, val_dataloader and '
                         'test_dataloader to less (0 needs none)')


def _size(item) -> int:
    """Return the size of the tensors in an item in bytes."""
    if isinstance(item, torch.Tensor):
        return item.nbytes
    if isinstance(item, dict):
        return sum(map(_size, item.values()))
    return sum(map(_size, item)) if isinstance(item, (list, tuple)) else 0
