"""What tools have in common: arguments, and how they end on bad input (one clear line and a non-zero exit)."""
import argparse
import contextlib
import logging
import os
import select
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from .interrupts import InterruptListener

# Errors that speak of the input or the machine: files, values, memory. Anything else is a bug, and shows its traceback.
_EXPECTED = (OSError, ValueError, KeyError, ImportError, RuntimeError, FloatingPointError, OverflowError, EOFError,
             MemoryError)
# The same in modules that a tool needn't have imported: what their readers say of damaged files.
_EXPECTED_OF = dict(sqlite3='Error', zipfile='BadZipFile', zlib='error', pickle='UnpicklingError', lmdb='Error',
                    safetensors='SafetensorError')
# These too while a part is built from its config.
_IN_CONFIGS = (TypeError, AttributeError, AssertionError)
_TRACEBACK = 'VOP_MM_TRACEBACK'
_NO_READER = 141  # of shells, for a program that writes to a pipe that nobody reads
_COMMON_ARGUMENTS = {
    '--cfg-options': dict(nargs='+', action='extend', metavar='KEY=VALUE', help='change the config'),
    '--backend-args': dict(nargs='+', action='extend', metavar='KEY=VALUE',
                           help='how to read videos elsewhere: backend=... of MMEngine, or options of fsspec'),
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
    """Declare arguments that several tools take.

    Args:
        parser (argparse.ArgumentParser): The tool's.
        *flags (str): Names of the arguments, ``'--cfg-options'``.
        **changes: Given to ``parser.add_argument`` in place of what is common: ``help='change every config'``.
    """
    for flag in flags:
        parser.add_argument(flag, **{**_COMMON_ARGUMENTS[flag], **changes})


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool's ``main`` and exit with its status.

    Errors about the input (files, configs, arguments of their parts, checkpoints, memory, disk) become one line on
    stderr and status 1; set ``VOP_MM_TRACEBACK=1`` to see where they were raised. Interruption, anywhere and whatever
    becomes of it on its way up, gives one line and status 130. Where nobody reads any more what is printed
    (``| head``), it ends quietly.

    Args:
        main (Callable): Returns the exit status, or None for 0.
    """
    interrupts = InterruptListener()
    # a line of the log that doesn't fit on a full disk is lost; it doesn't print a traceback of its own
    logging.raiseExceptions = bool(os.environ.get(_TRACEBACK))
    with contextlib.suppress(AttributeError):  # something else stands in for it
        # names of files needn't be text that the terminal knows; what is printed is neither mixed into the output of
        # child processes nor lost when one of them dies
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
    if interrupts.since is not None:  # something swallowed it, and the work was done before it was raised again
        interrupts.end()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # Python would try it again, and complain
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if sys._getframe(1).f_globals.get('__name__') == '__main__':  # a program, and not a function that one calls
        interrupts.exit(status)
    sys.exit(status)


def _expected() -> tuple:
    return (*_EXPECTED, *(getattr(sys.modules[module], name, ()) for module, name in _EXPECTED_OF.items()
                          if module in sys.modules))


def _has_no_reader() -> bool:
    """Whether what is printed goes to a pipe that was closed at its other end."""
    poll = select.poll()
    with contextlib.suppress(OSError, ValueError):  # stdout is no file, or none that is open
        poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _part_being_built(error: BaseException) -> str | None:
    """The part that was being built from a config when a library refused an argument; None: none was.

    A ``ValueError`` of this project says itself what it is about.
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
    """Leave the group of processes, if there is one. For the way out of a run that went well.

    A process that ends inside its group is now and then aborted by the group's threads, after all work is done. Where
    something failed, others may wait in a call for this one: the group is not to be left.
    """
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        # Gloo's threads let go of the last operation's tensors, for which they need the interpreter. Leaving holds it
        # while it waits for them (seen with torch 2.2 and 2.4).
        time.sleep(0.1)
        distributed.destroy_process_group()


def one_line(error: BaseException) -> str:
    """An exception as one line that a user can act on.

    Args:
        error (BaseException): Any.

    Returns:
        str: Its message, :func:`printable`; for messages that don't say what they are about, the kind of error before
        it.
    """
    return printable(_message(error))


def printable(text: str) -> str:
    """A text of somebody else's (the name of a file, what a library says of it) as one line.

    Args:
        text (str): Any.

    Returns:
        str: The text; characters that a terminal would act on, or can't show, are escaped.
    """
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def _message(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # the latter is torch's RuntimeError
        return ' '.join(f'out of memory: {error}'.split()).removesuffix(':')
    if isinstance(error, OSError) and error.strerror:
        where = f': {error.filename}' if error.filename else ''
        return f'{error.strerror}{where}'
    # a KeyError's text is the repr of its message
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = ' '.join(text.split())
    plain = type(error).__module__.startswith('vop_mm') or isinstance(error, (FileNotFoundError, ConnectionError))
    return text if plain and text else f'{type(error).__name__}: {text}'
