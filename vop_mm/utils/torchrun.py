"""Run torchrun with the exit behavior of the tools.

Usage: ``python -m vop_mm.utils.torchrun [options of torchrun] SCRIPT ...``
"""
import logging
import os
import signal
import sys

from vop_mm.early_interrupt import LAUNCHED

from .cli import run_cli


def main() -> int:
    """Start the processes and wait for them.

    Returns:
        int: 0, or the status of the process that failed first; for a signal, the status that shells give.

    Raises:
        KeyboardInterrupt: SIGINT was received; the processes have ended.
    """
    os.environ[LAUNCHED] = '1'
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in ('agent.server.api', 'multiprocessing.api'):  # they log every signal that they forward
        logging.getLogger(f'torch.distributed.elastic.{name}').setLevel(logging.ERROR)
    try:
        run.main()
    except SignalException as e:
        if e.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        return _status(-e.sigval)
    except ChildFailedError as e:
        rank, failure = e.get_first_failure()
        if failure.exitcode < 0:  # otherwise the process has reported the reason
            print(f'error: process {rank} ended: {failure.message}', file=sys.stderr)
        return _status(failure.exitcode)
    return 0


def _status(code: int) -> int:
    return 128 - code if code < 0 else code


if __name__ == '__main__':
    run_cli(main)
