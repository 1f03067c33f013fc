"""Hook that monitors videos that can't be decoded."""
from collections.abc import Sequence

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.logging import MMLogger

from vop_mm.datasets.errors import TooManyUnreadableVideosError
from vop_mm.registry import HOOKS
from vop_mm.utils.cli import printable


@HOOKS.register_module()
class UnreadableVideoHook(Hook):
    """Hook that logs videos that can't be decoded, and stops training if there are too many of them.

    Each video is logged once, with the reason. In training, the hook counts the samples that had to be replaced; in
    evaluation, it reports the videos that were left out. It reads ``unreadable`` of the data samples' metainfo; see
    :class:`~vop_mm.datasets.VideoTextDataset`. Every process checks its own samples; they are combined at the end of an
    epoch.

    Args:
        max_share (float): Training stops if more than this share of an epoch's samples had to be replaced. Defaults
            to 0.01.
        min_samples (int): Number of samples of a process before the share is checked within an epoch; at its end, it
            is always checked. Defaults to 1000.
    """

    def __init__(self, max_share: float = 0.01, min_samples: int = 1000) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f'max_share must lie in 0..1, got {max_share}')
        self.max_share = max_share
        self.min_samples = min_samples
        self._logged = {}  # path -> reason, over the whole run
        self._samples = self._replaced = 0  # in this epoch
        self._skipped = {}  # path -> reason, in this evaluation

    # -- training ---------------------------------------------------------------------------------------------------
    def before_train_epoch(self, runner) -> None:
        self._samples = self._replaced = 0

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Count the samples of a batch before it is trained on.

        Raises:
            TooManyUnreadableVideosError: More than ``max_share`` of the samples had to be replaced.
        """
        for unreadable in _unreadable(data_batch):
            self._samples += 1
            self._replaced += bool(unreadable)
            for path, reason in unreadable:
                self._log(runner.logger, path, reason)
        if self._samples >= self.min_samples:
            self._check(self._samples, self._replaced)

    def after_train_epoch(self, runner) -> None:
        """Sum up the epoch over all processes.

        Raises:
            TooManyUnreadableVideosError: More than ``max_share`` of the samples had to be replaced.
        """
        parts = all_gather_object((self._samples, self._replaced, self._logged))
        samples, replaced = sum(part[0] for part in parts), sum(part[1] for part in parts)
        for _, _, logged in parts:  # warnings of other processes are not shown where they occur
            for path, reason in logged.items():
                self._log(runner.logger, path, reason)
        if replaced:
            runner.logger.warning(f'{replaced} of {samples} training samples of epoch {runner.epoch + 1} were replaced '
                                  f'by others; {len(self._logged)} videos can\'t be decoded so far')
        self._check(samples, replaced)

    def _check(self, samples: int, replaced: int) -> None:
        if replaced > self.max_share * samples:
            examples = ', '.join(map(printable, sorted(self._logged)[:3]))
            raise TooManyUnreadableVideosError(
                f'{replaced} of {samples} training samples ({replaced / samples:.1%}) had a video that can\'t be '
                f'decoded, more than max_share={self.max_share:g} of UnreadableVideoHook allows; such as {examples}')

    # -- evaluation -------------------------------------------------------------------------------------------------
    def before_val_epoch(self, runner) -> None:
        self._skipped = {}

    def before_test_epoch(self, runner) -> None:
        self._skipped = {}

    def after_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                       outputs: Sequence | None = None) -> None:
        self._note(runner, data_batch)

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence | None = None) -> None:
        self._note(runner, data_batch)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self._report(runner)

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        self._report(runner)

    def _note(self, runner, data_batch: dict | None) -> None:
        for unreadable in _unreadable(data_batch):
            self._skipped.update(unreadable)
            for path, reason in unreadable:
                self._log(runner.logger, path, reason)

    def _report(self, runner) -> None:
        skipped = {path: reason for part in all_gather_object(self._skipped) for path, reason in part.items()}
        if skipped:
            runner.logger.warning(f'{len(skipped)} videos were left out of the evaluation because they can\'t be '
                                  f'decoded: {", ".join(map(printable, sorted(skipped)))}')

    def _log(self, logger: MMLogger, path: str, reason: str) -> None:
        if path not in self._logged:
            self._logged[path] = reason
            logger.warning(f"can't decode {printable(path)}: {printable(reason)}")


def _unreadable(data_batch: dict | None) -> list[list[tuple[str, str]]]:
    """Return the unreadable videos of every sample of a batch."""
    return [sample.get('unreadable', []) for sample in (data_batch or {}).get('data_samples', ())]
