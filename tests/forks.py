"""What a process does that was forked to train."""
import multiprocessing
import os
from types import SimpleNamespace

import torch


def renew_thread_pool() -> None:
    """Make torch's pool of threads anew, first thing in a forked process.

    torch does so after a fork, but in a process whose parent has used the pool only at its own first use of it. Where
    two threads come to that at once, the process crashes with ``Invalid thread pool!`` (torch 2.14).
    """
    torch.set_num_threads(torch.get_num_threads())


class ForkedPython(multiprocessing.get_context('fork').Process):
    """What ``run_in_process`` asks of ``subprocess.Popen([python, '-c', CODE])``: a fork imports nothing again."""

    def __init__(self, command: list[str], stdin: int, stdout, stderr) -> None:
        super().__init__(target=_execute, args=(command[-1], stdout.fileno(), stderr.fileno()))
        self.start()

    @property
    def returncode(self) -> int | None:
        return self.exitcode

    def poll(self) -> int | None:
        return self.exitcode


def fork_runs() -> None:
    """Let a tool fork its runs; for ``before`` of ``run_tool``."""
    from vop_mm.engine import run_apart
    run_apart.subprocess = SimpleNamespace(Popen=ForkedPython, DEVNULL=None)


def _execute(code: str, out: int, err: int) -> None:
    renew_thread_pool()
    os.dup2(out, 1)
    os.dup2(err, 2)
    exec(code, {})
