"""Hook that passes the epoch to the training dataset."""
from mmengine.hooks import Hook
from torch.utils.data import Dataset

from vop_mm.registry import HOOKS


@HOOKS.register_module()
class SetEpochHook(Hook):
    """Hook that calls ``set_epoch(epoch, seed)`` of the training dataset before each epoch, with the runner's seed.

    For a wrapper (``ConcatDataset``, ``RepeatDataset``, ``Subset`` ...), the datasets inside it are called. Random
    choices of training items depend on both values; see :class:`~vop_mm.datasets.VideoTextDataset`.
    """

    def before_train_epoch(self, runner) -> None:
        for dataset in _leaves(runner.train_dataloader.dataset):
            if hasattr(dataset, 'set_epoch'):
                dataset.set_epoch(runner.epoch, runner.seed)


def _leaves(dataset: Dataset) -> list[Dataset]:
    inner = getattr(dataset, 'datasets', None) or ([dataset.dataset] if hasattr(dataset, 'dataset') else None)
    return [dataset] if inner is None else [leaf for part in inner for leaf in _leaves(part)]
