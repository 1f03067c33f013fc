"""Log lines that describe what was evaluated."""
import re

from mmengine.runner import LogProcessor, Runner

from vop_mm.evaluation.metrics.retrieval_metric import what_was_evaluated
from vop_mm.registry import LOG_PROCESSORS


@LOG_PROCESSORS.register_module()
class RetrievalLogProcessor(LogProcessor):
    """MMEngine's log processor, extended by dataset, split, protocol and gallery size in evaluation results.

    Recalls of galleries of different sizes can't be compared, so results are of little use without this information.

    Args:
        **kwargs: Arguments of :class:`mmengine.runner.LogProcessor`.
    """

    def get_log_after_epoch(self, runner: Runner, batch_idx: int, mode: str,
                            with_non_scalar: bool = False) -> tuple[dict, str]:
        """Return the log line after an evaluation; arguments and result as in MMEngine."""
        tag, line = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        loop = runner.val_loop if mode == 'val' else runner.test_loop
        evaluated = [text for metric in loop.evaluator.metrics if (text := what_was_evaluated(metric))]
        if not evaluated:
            return tag, line
        head = re.match(r'Epoch\(\w+\) *(\[[^\]]*\] *)+', line)
        end = head.end() if head else 0
        return tag, f'{line[:end]}{", ".join(evaluated)}  {line[end:]}'
