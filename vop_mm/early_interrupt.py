"""Ctrl-C in the first moments of a tool, before ``run_cli`` listens: one line and status 130, and no traceback.

Nothing has begun then that would have to be cleaned up, so that the process may end where it is: an exception would be
lost in callbacks of Python's imports.
"""
import _signal  # built in: importing the module around it takes time, in which a Ctrl-C may come
import os
import sys

STATUS = 130  # of shells, for what SIGINT ended
LAUNCHED = 'VOP_MM_LAUNCHED'  # environment variable: a launcher says of all its processes that they were interrupted


def end_tool_at_interrupt() -> None:
    """From here on SIGINT ends this process, if its program is one that calls ``run_cli``, which then listens itself.

    In other programs, and where SIGINT is ignored or handled already, all stays as it is.
    """
    if _is_tool() and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        try:
            _signal.signal(_signal.SIGINT, _end)
        except ValueError:  # imported by a thread
            pass


def say_interrupted() -> None:
    """The one line, which goes to stderr."""
    try:
        os.write(2, b'interrupted\n')
    except OSError:  # nobody reads it, or it is closed
        pass


def _end(*_) -> None:
    if LAUNCHED not in os.environ:
        say_interrupted()
    os._exit(STATUS)


def _is_tool() -> bool:
    """Whether the program's own code, which is importing this, names ``run_cli``, or it is a module of the package."""
    if sys.argv[:1] == ['-m']:  # the package of a module that is yet to be run
        return any(arg.startswith(__package__ + '.') for arg in sys.orig_argv[1:])
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
    return frame.f_globals.get('__name__') == '__main__' and 'run_cli' in frame.f_code.co_names
