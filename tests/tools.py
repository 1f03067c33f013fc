"""Running the project's tools in tests, as processes of their own."""
import ctypes
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO

# Imported once, here, and not in every process that is forked: what tools import when they come to it.
import matplotlib.pyplot  # noqa: F401
import mmaction.datasets  # noqa: F401
import open_clip  # noqa: F401
import torch._dynamo  # noqa: F401

import vop_mm.apis.experiment  # noqa: F401
from vop_mm.utils import register_all_modules

register_all_modules()

ROOT = Path(__file__).resolve().parents[1]


def run_tool(tool: str, *args: str, before: Callable[[], None] | None = None,
             cwd: str | Path = ROOT) -> subprocess.CompletedProcess:
    """Run a Python tool to its end.

    The process is forked from this one, so that the libraries needn't be imported again: a second in place of eight.

    Args:
        tool (str): Path below the root, ``tools/train.py``.
        *args (str): Its arguments.
        before (Callable, optional): Called in the new process first, to set limits.
        cwd (str | Path): Where to run it. Defaults to the root.

    Returns:
        subprocess.CompletedProcess: Status, and what it printed.
    """
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        child = fork_tool(tool, *args, out=out, err=err, before=before, cwd=cwd)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([tool, *args], status, out.read(), err.read())


def fork_tool(tool: str, *args: str, out: IO, err: IO, before: Callable[[], None] | None = None,
              cwd: str | Path = ROOT) -> int:
    """Start what :func:`run_tool` runs to its end.

    Args:
        tool, *args, before, cwd: As there.
        out (IO): A real file that gets what it prints.
        err (IO): And this one what goes to stderr.

    Returns:
        int: The process, of which the caller has to take the status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _run(tool, [str(a) for a in args], before, cwd, out, err)
    return child


def _run(tool: str, args: list[str], before, cwd, out, err) -> None:
    status = 70
    try:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False)
        os.chdir(cwd)
        sys.argv = [tool, *args]
        if before is not None:
            before()
        runpy.run_path(str(ROOT / tool), run_name='__main__')
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def start_tool(tool: str, *args: str, cwd: str | Path = ROOT) -> subprocess.Popen:
    """Start a Python tool as a new process, its output on one pipe."""
    return subprocess.Popen([sys.executable, str(ROOT / tool), *map(str, args)], cwd=cwd, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


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
