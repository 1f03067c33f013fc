"""Room for the batches that the workers of a data loader hand over."""
import os

import torch
from torch.utils.data import DataLoader

_FOLDER = '/dev/shm'
_LARGE_ITEM = 2**24  # bytes: where that many fit, nothing has to be measured


def check_shared_memory(loader: DataLoader) -> None:
    """Refuse a data loader whose batches don't fit into shared memory.

    A worker that finds no room prints an error and goes on, and the process that waits for its batch waits forever.
    Containers have 64 MB of shared memory where nothing else is said.

    Args:
        loader (DataLoader): The loader; one without workers needs none. Its first item may be read.

    Raises:
        ValueError: There is less room than its workers may fill.
    """
    if not loader.num_workers or not os.path.isdir(_FOLDER):
        return
    status = os.statvfs(_FOLDER)
    free = status.f_bavail * status.f_frsize
    batches = loader.num_workers * loader.prefetch_factor + 1  # one more is being used
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
    """Bytes of the tensors in an item."""
    if isinstance(item, torch.Tensor):
        return item.nbytes
    if isinstance(item, dict):
        return sum(map(_size, item.values()))
    return sum(map(_size, item)) if isinstance(item, (list, tuple)) else 0
