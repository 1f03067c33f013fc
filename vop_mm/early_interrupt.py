"""Handling of Ctrl-C during the start of a tool, before ``run_cli`` takes over.

The tool prints one line, without a traceback, and exits with status 130. There is nothing to clean up this early, so
the process may exit immediately: an exception would be lost in callbacks of Python's import system.
"""
import _signal  # built in: importing the signal module takes time, during which Ctrl-C may be pressed
import os
import sys

STATUS = 130  # exit status of shells for processes ended by SIGINT
LAUNCHED = 'VOP_MM_LAUNCHED'  # environment variable: the launcher reports the interrupt for all its processes


def end_tool_at_interrupt() -> None:
    """Make SIGINT end this process if its program calls ``run_cli``, which later installs its own handler.

    Nothing changes in other programs, or if SIGINT is ignored or has a handler already.
    """
    if _is_tool() and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        try:
            _signal.signal(_signal.SIGINT, _end)
        except ValueError:  # imported by a thread
            pass


def say_interrupted() -> None:
    """Write the one-line message to stderr."""
    try:
        os.write(2, b'interrupted\n')
    except OSError:  # stderr is closed or has no reader
        pass


def _end(*_) -> None:
    if LAUNCHED not in os.environ:
        say_interrupted()
    os._exit(STATUS)


def _is_tool() -> bool:
    """Return whether the importing program mentions ``run_cli`` in its own code or is a module of this package."""
    if sys.argv[:1] == ['-m']:  # the package of a module that has not run yet
        return any(arg.startswith(__package__ + '.') for arg in sys.orig_argv[1:])
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
    return frame.f_globals.get('__name__') == '__main__' and 'run_cli' in frame.f_code.co_names
