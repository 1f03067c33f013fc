"""Ctrl-C ends a tool, wherever it is: what it has begun is cleaned up, for some seconds, and its children are ended."""
import atexit
import contextlib
import multiprocessing.util
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from vop_mm.early_interrupt import LAUNCHED, STATUS, say_interrupted

_PATIENCE = 5.  # seconds for cleaning up
_SAME = 1.  # seconds in which another SIGINT is no second Ctrl-C: launchers pass the terminal's on to their processes
_LOOK = 0.2  # seconds between looks whether the tool is on its way out

_ignored_here = False  # this process was forked from a tool


class InterruptListener:
    """What SIGINT does to a tool: ``KeyboardInterrupt`` once, and again where something swallowed it.

    Python drops exceptions in finalizers and in callbacks of C, and libraries make others of them. Here the signal
    is noted, and every :data:`_LOOK` seconds the main thread is looked at: where no ``KeyboardInterrupt`` is on its way
    up, another one is raised. After :data:`_PATIENCE` seconds, or at a second Ctrl-C, the process ends as it is.

    Processes that the tool forks ignore SIGINT: the terminal sends it to all of them, and it is the tool that ends
    them.

    Attributes:
        since (float | None): When the interrupt came, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.since = None
        self._raised, self._over, self._tells = None, False, LAUNCHED not in os.environ

    def listen(self) -> None:
        """Begin. From here on ``KeyboardInterrupt`` may be raised, here too."""
        self._hush()
        # a shell that starts a program in the background of a script has it ignore SIGINT: this is kept
        if threading.current_thread() is threading.main_thread() and (
                _ignored_here or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN):
            with held_interrupts():
                signal.signal(signal.SIGINT, self._on_interrupt)
                signal.signal(signal.SIGALRM, self._on_alarm)
            os.register_at_fork(after_in_child=_ignore)

    def main_is_over(self) -> None:
        """From here on nothing is cleaned up, and Ctrl-C ends the process at once."""
        self._over = True

    def exit(self, status: int) -> NoReturn:
        """Exit as Python does, but without taking itself apart: that takes torch a while, and listens to nothing."""
        threading._shutdown()
        atexit._run_exitfuncs()
        _flush()
        os._exit(status)

    def end(self) -> NoReturn:
        """End the process with one line and status 130, and before it its children. What is registered to be done at
        exit, is done.
        """
        self._over = True
        self.since = self.since or time.monotonic()  # a KeyboardInterrupt that no signal raised
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises an error where a worker is killed
            end_children(spare=_resource_tracker())
            # where this hangs (it joins threads), the process ends nevertheless
            signal.signal(signal.SIGALRM, lambda *_: self._end_now())
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
            atexit._run_exitfuncs()
        self._end_now()

    def _on_interrupt(self, *_) -> None:
        now = time.monotonic()
        if self.since is None:
            self.since = now
            if self._over:
                self._end_now()
            signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
            self._raise()
        elif now - self.since > _SAME:
            self._end_now()

    def _on_alarm(self, *_) -> None:
        if self._over or self.since is None:
            return
        if time.monotonic() - self.since > _PATIENCE:
            self._end_now()
        if not self._is_on_its_way():
            self._raise()

    def _raise(self) -> NoReturn:
        self._raised = KeyboardInterrupt()
        raise self._raised

    def _is_on_its_way(self) -> bool:
        """Whether the main thread is in an ``except`` or ``finally`` of the interrupt, or of what was made of it."""
        error = sys.exc_info()[1]
        while error is not None and error is not self._raised:
            error = error.__context__
        return error is not None

    def _end_now(self) -> NoReturn:
        with contextlib.suppress(BaseException):
            end_children()
        with contextlib.suppress(BaseException):
            if files := sys.modules.get('vop_mm.utils.files'):
                files.remove_own()
        with contextlib.suppress(BaseException):
            if folder := multiprocessing.process.current_process()._config.get('tempdir'):
                shutil.rmtree(folder, ignore_errors=True)
        _flush()
        if self._tells:
            say_interrupted()
        os._exit(STATUS)

    def _hush(self) -> None:
        """After an interrupt no tracebacks of finalizers and of threads that lost what they worked for."""
        tell_unraisable, tell_thread = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = lambda args: None if self.since is not None else tell_unraisable(args)
        threading.excepthook = lambda args: None if self.since is not None else tell_thread(args)


@contextlib.contextmanager
def held_interrupts() -> Iterator[None]:
    """Keep SIGINT back, and from programs that are started meanwhile for good: it is the tool that ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """In a worker of a pool, which waits for work for ever: end it when the process that started it is gone."""
    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def share_temporary_folder() -> None:
    """Make the folder in which :mod:`multiprocessing` keeps its sockets, before workers are started: they then use this
    one. Each would make one of its own, and leave it when it is killed.
    """
    multiprocessing.util.get_temp_dir()


def end_children(spare: int | None = None) -> None:
    """End the processes that this one started, those that they started, and so on, at once.

    Args:
        spare (int, optional): One that goes on.
    """
    for pid in _descendants():
        if pid != spare:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _resource_tracker() -> int | None:
    """The process of :mod:`multiprocessing` that ends with this one, and complains when it didn't clean up at exit."""
    module = sys.modules.get('multiprocessing.resource_tracker')
    return module and module._resource_tracker._pid


def _descendants() -> list[int]:
    children = {}
    for entry in os.scandir('/proc') if os.path.isdir('/proc/self') else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                stat = Path(entry.path, 'stat').read_text(errors='replace')
                children.setdefault(int(stat.rpartition(')')[2].split()[1]), []).append(int(entry.name))
    found = [os.getpid()]
    for parent in found:  # grows
        found += children.get(parent, ())
    return found[1:]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _ignore() -> None:
    global _ignored_here
    _ignored_here = True
    with contextlib.suppress(ValueError):  # forked by a thread: it is the main one in the child
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
