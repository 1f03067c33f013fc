"""Handle Ctrl-C in tools: clean up within a few seconds, and kill child processes."""
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
from types import FrameType
from typing import NoReturn

from vop_mm.early_interrupt import LAUNCHED, STATUS, say_interrupted

_PATIENCE = 5.  # seconds allowed for cleaning up
_SAME = 1.  # seconds in which another SIGINT is not a second Ctrl-C: launchers forward the terminal's signal
_LOOK = 0.2  # seconds between checks whether the interrupt is being handled

_ignored_here = False  # this process was forked from a tool


class InterruptListener:
    """Turns SIGINT into one ``KeyboardInterrupt``, and raises it again if something swallowed it.

    Python drops exceptions in finalizers and C callbacks, and libraries convert them. Therefore the signal is recorded,
    and every :data:`_LOOK` seconds the main thread is checked: if it is not handling a ``KeyboardInterrupt``, another
    one is raised. None is raised during an import, where it can abort the process in C++ code. After :data:`_PATIENCE`
    seconds, or at a second Ctrl-C, the process exits immediately.

    Processes forked by the tool ignore SIGINT: the terminal sends it to all of them, and the tool kills them.

    Attributes:
        since (float | None): Time of the interrupt on the monotonic clock.
    """

    def __init__(self) -> None:
        self.since = None
        self._raised, self._over, self._tells = None, False, LAUNCHED not in os.environ

    def listen(self) -> None:
        """Start listening. From now on ``KeyboardInterrupt`` may be raised, even here."""
        self._hush()
        # a shell makes background programs of a script ignore SIGINT: this is preserved
        if threading.current_thread() is threading.main_thread() and (
                _ignored_here or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN):
            with held_interrupts():
                signal.signal(signal.SIGINT, self._on_interrupt)
                signal.signal(signal.SIGALRM, self._on_alarm)
            os.register_at_fork(after_in_child=_ignore)

    def main_is_over(self) -> None:
        """Stop cleaning up: from now on, Ctrl-C exits immediately."""
        self._over = True

    def exit(self, status: int) -> NoReturn:
        """Exit as Python does, but without its teardown, which takes long with torch and can't be interrupted."""
        threading._shutdown()
        atexit._run_exitfuncs()
        _flush()
        os._exit(status)

    def end(self) -> NoReturn:
        """Kill the children and exit with one line and status 130, after running exit handlers."""
        self._over = True
        self.since = self.since or time.monotonic()  # a KeyboardInterrupt without a signal
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises an error when a worker is killed
            end_children(spare=_resource_tracker())
            # exit even if this hangs (it joins threads)
            signal.signal(signal.SIGALRM, lambda *_: self._end_now())
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
            atexit._run_exitfuncs()
        self._end_now()

    def _on_interrupt(self, _, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.since is None:
            self.since = now
            if self._over:
                self._end_now()
            signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
            self._raise(frame)
        elif now - self.since > _SAME:
            self._end_now()

    def _on_alarm(self, _, frame: FrameType | None) -> None:
        if self._over or self.since is None:
            return
        if time.monotonic() - self.since > _PATIENCE:
            self._end_now()
        if not self._is_on_its_way():
            self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        while frame:
            if frame.f_code.co_filename == '<frozen importlib._bootstrap>':
                return  # raised when the import is done, see _on_alarm
            frame = frame.f_back
        self._raised = KeyboardInterrupt()
        raise self._raised

    def _is_on_its_way(self) -> bool:
        """Return True if the main thread is handling the interrupt, or an exception raised from it."""
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
        """Suppress tracebacks of finalizers and threads after an interrupt."""
        tell_unraisable, tell_thread = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = lambda args: None if self.since is not None else tell_unraisable(args)
        threading.excepthook = lambda args: None if self.since is not None else tell_thread(args)


@contextlib.contextmanager
def held_interrupts() -> Iterator[None]:
    """Delay SIGINT; programs started within the context never receive it, as the tool kills them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End a pool worker, which waits for work forever, when the process that started it is gone."""
    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def share_temporary_folder() -> None:
    """Create the folder for :mod:`multiprocessing`'s sockets before workers are started, so that they share it.

    Otherwise each worker would create its own, and leave it behind when killed.
    """
    multiprocessing.util.get_temp_dir()


def end_children(spare: int | None = None) -> None:
    """Kill all descendant processes immediately.

    Args:
        spare (int, optional): Process id of a process to spare.
    """
    for pid in _descendants():
        if pid != spare:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _resource_tracker() -> int | None:
    """Return the pid of :mod:`multiprocessing`'s resource tracker, which exits with this process.

    It complains if it could not clean up at exit.
    """
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
