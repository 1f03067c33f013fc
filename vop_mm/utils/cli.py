"""Shared arguments of the tools, and their exit on bad input (one clear line and a non-zero status)."""
import argparse
import contextlib
import logging
import os
import select
import sys
import time
import warnings
from collections.abc import Callable
from typing import NoReturn

from .interrupts import InterruptListener

# Errors caused by the input or the machine: files, values, memory. Anything else is a bug and shows its traceback.
_EXPECTED = (OSError, ValueError, KeyError, ImportError, RuntimeError, FloatingPointError, OverflowError, EOFError,
             MemoryError)
# Errors of optional modules for damaged files; they count only if the module is imported.
_EXPECTED_OF = dict(sqlite3='Error', zipfile='BadZipFile', zlib='error', pickle='UnpicklingError', lmdb='Error',
                    safetensors='SafetensorError')
# Additional errors expected while a component is built from its config.
_IN_CONFIGS = (TypeError, AttributeError, AssertionError)
_PYTHON_FORMAT = warnings.formatwarning
_TRACEBACK = 'VOP_MM_TRACEBACK'
_NO_READER = 141  # shell convention for a program that writes to a closed pipe
_COMMON_ARGUMENTS = {
    '--cfg-options': dict(nargs='+', action='extend', metavar='KEY=VALUE', help='change the config'),
    '--backend-args': dict(nargs='+', action='extend', metavar='KEY=VALUE',
                           help='how to read videos elsewhere: backend=... of MMEngine, or options of fsspec'),
    '--import': dict(dest='modules', nargs='+', action='extend', default=[], metavar='MODULE',
                     help='modules that register your own components, as in custom_imports'),
    '--launcher': dict(choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                       help='how the processes were started (default: none)'),
    '--local-rank': dict(type=int, default=0, help=argparse.SUPPRESS),
    '--local_rank': dict(type=int, default=0, help=argparse.SUPPRESS),
    '--device': dict(default='cpu', help='default: cpu'),
    '--bf16': dict(action='store_true', help='compute in bfloat16'),
    '--batch-size': dict(type=int, default=32, help='clips that are encoded together (default: 32)'),
    '--timeout': dict(type=float, default=60, metavar='SECONDS',
                      help='that decoding a batch of clips of a video may take (default: 60)'),
    '--window': dict(type=float, metavar='SECONDS',
                     help='longer videos are cut into windows of this length (default: 30)'),
    '--stride': dict(type=float, metavar='SECONDS',
                     help="from one window's start to the next one's (default: half a window)"),
    '--bootstrap': dict(type=int, default=0, metavar='N',
                        help='95%% confidence intervals over queries, from N samples'),
}


def add_common_arguments(parser: argparse.ArgumentParser, *flags: str, **changes) -> None:
    """Declare arguments shared by several tools.

    Args:
        parser (argparse.ArgumentParser): Parser of the tool.
        *flags (str): Names of the arguments, ``'--cfg-options'``.
        **changes: Options of ``parser.add_argument`` that override the shared ones: ``help='change every config'``.
    """
    for flag in flags:
        parser.add_argument(flag, **{**_COMMON_ARGUMENTS[flag], **changes})


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool's ``main`` and exit with its status.

    Errors about the input (files, configs, component arguments, checkpoints, memory, disk) are printed as one line on
    stderr with status 1; set ``VOP_MM_TRACEBACK=1`` to see the traceback. An interrupt, wherever it occurs and whatever
    libraries make of it, prints one line and gives status 130. On a closed pipe (``| head``), the tool exits quietly.

    Args:
        main (Callable): Function that returns the exit status, or None for 0.
    """
    interrupts = InterruptListener()
    warnings.formatwarning = _format_warning
    # a log line that doesn't fit on a full disk is dropped, without a traceback of its own
    logging.raiseExceptions = bool(os.environ.get(_TRACEBACK))
    with contextlib.suppress(AttributeError):  # stdout was replaced by another object
        # File names may contain characters that the terminal can't show. Line buffering keeps output from being mixed
        # with that of child processes, and from being lost when one of them dies.
        sys.stdout.reconfigure(errors='backslashreplace', line_buffering=True)
    try:
        try:
            interrupts.listen()
            status = main() or 0
            leave_process_group()
            sys.stdout.flush()
        finally:
            interrupts.main_is_over()
    except BaseException as e:
        interrupts.main_is_over()
        if interrupts.since is not None or isinstance(e, KeyboardInterrupt):
            interrupts.end()
        if isinstance(e, BrokenPipeError) and _has_no_reader():
            status = _NO_READER
        elif (part := _part_being_built(e)) or isinstance(e, _expected()):
            if os.environ.get(_TRACEBACK):
                raise
            print(f'error: {one_line(e)}' + (f' (in the config of {part})' if part else ''), file=sys.stderr)
            print(f'(set {_TRACEBACK}=1 to see where)', file=sys.stderr)
            status = 1
        else:
            raise
    if interrupts.since is not None:  # the interrupt was swallowed, and the work ended before it was raised again
        interrupts.end()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # Python would try again, and complain
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if sys._getframe(1).f_globals.get('__name__') == '__main__':  # run as a program, not called as a function
        interrupts.exit(status)
    sys.exit(status)


def _format_warning(message: Warning, category: type, filename: str, lineno: int, line: str | None = None) -> str:
    """Format a warning of this project as one line; those of libraries keep Python's form."""
    if category.__module__.partition('.')[0] == __name__.partition('.')[0]:
        return f'warning: {" ".join(str(message).split())}\n'
    return _PYTHON_FORMAT(message, category, filename, lineno, line)


def _expected() -> tuple:
    return (*_EXPECTED, *(getattr(sys.modules[module], name, ()) for module, name in _EXPECTED_OF.items()
                          if module in sys.modules))


def _has_no_reader() -> bool:
    """Return True if stdout is a pipe whose other end was closed."""
    poll = select.poll()
    with contextlib.suppress(OSError, ValueError):  # stdout is no file, or closed
        poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _part_being_built(error: BaseException) -> str | None:
    """Return the component being built from a config when a library refused an argument; None if there was none.

    A ``ValueError`` raised by this project names its subject itself.
    """
    if type(error) not in (*_IN_CONFIGS, ValueError):
        return None
    part, trace = None, error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        if frame.f_code.co_name == 'build_from_cfg':
            part = getattr(frame.f_locals.get('obj_cls'), '__name__', None) or part
        elif frame.f_code.co_name in ('build_dataloader', 'from_cfg'):
            part = 'a data loader' if frame.f_code.co_name == 'build_dataloader' else 'the runner'
    by_us = frame.f_globals.get('__name__', '').startswith('vop_mm')
    return None if by_us and isinstance(error, ValueError) else part


def leave_process_group() -> None:
    """Leave the process group, if there is one, at the end of a successful run.

    A process that exits inside its group is sometimes aborted by the group's threads after all work is done. If
    something failed, the group must not be left, because other processes may be waiting in a call for this one.
    """
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        # Gloo's threads need the interpreter to release the last operation's tensors, while leaving the group holds it
        # and waits for them (seen with torch 2.2 and 2.4).
        time.sleep(0.1)
        distributed.destroy_process_group()


def one_line(error: BaseException) -> str:
    """Format an exception as one line that a user can act on.

    Args:
        error (BaseException): Any exception.

    Returns:
        str: Its message, made :func:`printable`, preceded by the exception type if the message is unclear without it.
    """
    return printable(_message(error))


def printable(text: str) -> str:
    """Make an external text (a file name, a library's message) printable on a terminal.

    Args:
        text (str): Any text.

    Returns:
        str: The text, with control characters and characters that can't be shown escaped.
    """
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def _message(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # the latter is torch's RuntimeError
        return ' '.join(f'out of memory: {error}'.split()).removesuffix(':')
    if isinstance(error, OSError) and error.strerror:
        where = f': {error.filename}' if error.filename else ''
        return f'{error.strerror}{where}'
    # str() of a KeyError is the repr of its message
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = ' '.join(text.split())
    plain = type(error).__module__.startswith('vop_mm') or isinstance(error, (FileNotFoundError, ConnectionError))
    return text if plain and text else f'{type(error).__name__}: {text}'
