"""A process that has imported what tools import, and forks them: no second spent on imports, nothing of tests in them.

Tools that were forked from the tests' own process would find its threads' locks, and half of libraries that a fork
does not take along (gRPC, Arrow): now and then one crashed.
"""
import gc
import os
import runpy
import signal
import socket
import struct
import sys
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main(fd: int) -> None:
    """Serve requests of ``tests/tools.py`` until it is gone.

    A request is a cloudpickled ``(tool, arguments, before, cwd, environment)`` behind its length, with three files:
    what the tool prints on, its stderr, and a socket that gets its number, and when it has ended its status.
    """
    import cloudpickle

    import_what_tools_do()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for tools
    requests = socket.socket(fileno=fd)
    while True:
        head, files, _, _ = socket.recv_fds(requests, 8, 3)
        if not head:
            return
        content = b''
        while len(content) < struct.unpack('<Q', head)[0]:
            content += requests.recv(1 << 20)
        if os.fork() == 0:
            requests.close()
            keep(cloudpickle.loads(content), *files)
        for file in files:
            os.close(file)


def import_what_tools_do() -> None:
    """Imported once, here, and not in every process that is forked."""
    import matplotlib.pyplot  # noqa: F401
    import mmaction.datasets  # noqa: F401
    import mmengine.config.config
    import mmengine.hooks.runtime_info_hook
    import mmengine.runner.runner
    import open_clip  # noqa: F401
    import torch
    import torch._dynamo  # noqa: F401

    import tests.forks  # noqa: F401
    import vop_mm.engine.experiment  # noqa: F401
    from vop_mm.utils import register_all_modules

    torch.set_num_threads(1)
    register_all_modules()
    # a fifth of what a small run takes: MMEngine formats its config and asks git for a version, for every checkpoint
    mmengine.config.config.FormatCode = lambda text, **style: (text, True)
    mmengine.runner.runner.get_git_hash = mmengine.hooks.runtime_info_hook.get_git_hash = str
    gc.collect()
    gc.freeze()  # MMEngine collects garbage for every data set: tools need not look through what is imported here


def keep(request: tuple, out: int, err: int, ours: int) -> None:
    """Fork a tool, and tell how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    tells = socket.socket(fileno=ours)
    tool = os.fork()
    if tool == 0:
        tells.close()
        run(*request, out, err)
    os.close(out)
    os.close(err)
    tells.sendall(struct.pack('<q', tool))
    status = os.waitstatus_to_exitcode(os.waitpid(tool, 0)[1])
    try:
        tells.sendall(struct.pack('<q', status))
    finally:
        os._exit(0)


def run(tool: str, args: list[str], before, cwd: str, environment: dict, out: int, err: int) -> None:
    """Become the tool."""
    status = 70
    try:
        os.setpgid(0, 0)  # to be killed with the processes that it starts
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [tool, *args]
        sys.path[0] = os.path.join(ROOT, os.path.dirname(tool))  # as Python does
        sys.modules['tests.forks'].renew_thread_pool()
        if before is not None:
            before()
        runpy.run_path(os.path.join(ROOT, tool), run_name='__main__')
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == '__main__':
    main(int(sys.argv[1]))
