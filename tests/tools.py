"""Running the project's tools in tests, as processes of their own."""
import contextlib
import ctypes
import functools
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import cloudpickle

ROOT = Path(__file__).resolve().parents[1]


def run_tool(tool: str, *args: str, before: Callable[[], None] | None = None,
             cwd: str | Path = ROOT) -> subprocess.CompletedProcess:
    """Run a Python tool to its end.

    It is forked from a process that has imported the libraries (``tests/zygote.py``): a second in place of eight.

    Args:
        tool (str): Path below the root, ``tools/train.py``.
        *args (str): Its arguments.
        before (Callable, optional): Called in the new process first, to set limits.
        cwd (str | Path): Where to run it. Defaults to the root.

    Returns:
        subprocess.CompletedProcess: Status, and what it printed.
    """
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        process = ForkedTool(tool, *args, out=out, err=err, before=before, cwd=cwd)
        try:
            status = process.wait()
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([tool, *args], status, out.read(), err.read())


class ForkedTool:
    """A tool that :func:`run_tool` runs to its end, started. It leads a process group.

    Args:
        tool, *args, before, cwd: As there.
        out (IO): A real file that gets what it prints.
        err (IO): And this one what goes to stderr.

    Attributes:
        pid (int): Its number.
    """

    def __init__(self, tool: str, *args: str, out: IO, err: IO, before: Callable[[], None] | None = None,
                 cwd: str | Path = ROOT) -> None:
        request = cloudpickle.dumps((tool, [str(a) for a in args], before, str(cwd), dict(os.environ)))
        self._tells, its = socket.socketpair()
        with its:
            socket.send_fds(_zygote(), [struct.pack('<Q', len(request))], [out.fileno(), err.fileno(), its.fileno()])
        _zygote().sendall(request)
        self._status = None
        self.pid = self._read(None)

    def poll(self) -> int | None:
        """Its exit status, once it has ended; that of a signal is negative."""
        with contextlib.suppress(TimeoutError):
            return self.wait(0.001)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, after at most so many seconds, or a ``TimeoutError``."""
        if self._status is None:
            self._status = self._read(timeout)
        return self._status

    def kill(self) -> None:
        """End it at once, with the processes of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def _read(self, timeout: float | None) -> int:
        self._tells.settimeout(timeout)
        content = self._tells.recv(8, socket.MSG_WAITALL)
        if len(content) < 8:
            raise RuntimeError('the process that forks tools is gone')
        return struct.unpack('<q', content)[0]


def start_ranks(tool: str, *args: str, processes: int, out: IO, err: IO) -> list[ForkedTool]:
    """Start a tool in several processes of one group, as torchrun does: it finds its place in the environment.

    Args:
        tool, *args, out, err: As :class:`ForkedTool` takes them.
        processes (int): How many.

    Returns:
        list[ForkedTool]: In rank order.
    """
    port = str(free_port())
    places = [dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1',
                   MASTER_PORT=port) for rank in range(processes)]
    return [ForkedTool(tool, *args, out=out, err=err, before=lambda place=place: os.environ.update(place))
            for place in places]


def run_ranks(tool: str, *args: str, processes: int) -> subprocess.CompletedProcess:
    """Run a tool in several processes of one group to their end; the status is the largest, the output all theirs."""
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        ranks = start_ranks(tool, *args, processes=processes, out=out, err=err)
        try:
            status = max(rank.wait() for rank in ranks)
        finally:
            for rank in ranks:
                rank.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([tool, *args], status, out.read(), err.read())


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@functools.cache
def _zygote() -> socket.socket:
    """Connected with a process that forks tools; it ends with this one."""
    ours, its = socket.socketpair()
    with its:
        subprocess.Popen([sys.executable, '-m', 'tests.zygote', str(its.fileno())], cwd=ROOT, stdin=subprocess.DEVNULL,
                         pass_fds=[its.fileno()])
    return ours


def start_tool(tool: str, *args: str, cwd: str | Path = ROOT) -> subprocess.Popen:
    """Start a Python tool as a new process, its output on one pipe. See :func:`wait_until`."""
    return subprocess.Popen([sys.executable, '-X', 'faulthandler', str(ROOT / tool), *map(str, args)], cwd=cwd,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def wait_until(reached: Callable[[], bool], process: subprocess.Popen, seconds: float = 200) -> None:
    """Wait for something that a started tool does.

    Raises:
        AssertionError: The tool ended before, or took longer; with its output, and with where it was.
    """
    until = time.monotonic() + seconds
    while not reached():
        if process.poll() is not None or time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGABRT)  # Python prints the stacks of its threads
            raise AssertionError(process.communicate(timeout=60)[0])
        time.sleep(0.01)  # a loop that never sleeps takes a core from the tool


def run_script(script: str, *args: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess:
    """Run a shell script of the project with this Python first on the path."""
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    return subprocess.run(['bash', str(ROOT / script), *map(str, args)], cwd=ROOT, text=True, capture_output=True,
                          timeout=timeout, env={**os.environ, 'PATH': path, **env})


def obey_permissions() -> None:
    """Give up root's right to read and write whatever it likes; for ``before`` of :func:`run_tool`."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the structure, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 rights
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), 'capget')
    for kind in range(3):
        sets[kind] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), 'capset')
