"""How every tool ends on bad input: one clear line and a non-zero exit."""
import logging
import os
import sys
import time
from collections.abc import Callable

# Errors that speak of the input or the machine. Anything else is a bug, and shows its traceback.
_EXPECTED = (OSError, ValueError, KeyError, ImportError, RuntimeError, FloatingPointError)
_TRACEBACK = 'VOP_MM_TRACEBACK'


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and exit with its status.

    Errors about the input (files, configs, checkpoints, memory, disk) become one line on stderr and status 1; set
    ``VOP_MM_TRACEBACK=1`` to see where they were raised. Interruption gives status 130.

    Args:
        main (Callable): Returns the exit status, or None for 0.
    """
    # a line of the log that doesn't fit on a full disk is lost; it doesn't print a traceback of its own
    logging.raiseExceptions = bool(os.environ.get(_TRACEBACK))
    try:
        status = main() or 0
        leave_process_group()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    except _EXPECTED as e:
        if os.environ.get(_TRACEBACK):
            raise
        print(f'error: {one_line(e)}', file=sys.stderr)
        print(f'(set {_TRACEBACK}=1 to see where)', file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


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
        str: Its message; for messages that don't say what they are about, the kind of error before it.
    """
    if isinstance(error, OSError) and error.strerror:
        where = f': {error.filename}' if error.filename else ''
        return f'{error.strerror}{where}'
    # a KeyError's text is the repr of its message
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = ' '.join(text.split())
    plain = type(error).__module__.startswith('vop_mm') or isinstance(error, (FileNotFoundError, ConnectionError))
    return text if plain and text else f'{type(error).__name__}: {text}'
