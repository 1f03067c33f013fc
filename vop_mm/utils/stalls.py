"""Reads that may never come back, as those of a network drive whose server is gone."""
import errno
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar('T')
PATIENCE = 60.  # seconds that a disk or a network drive may take to give the next part of a file or folder


def call_unless_stalled(call: Callable[[Callable[[], None]], T], seconds: float | None = None) -> T:
    """Call a function as long as it gets on.

    It runs in a thread of its own. If it stalls, the thread is left behind: nothing can end a read that the system
    waits for.

    Args:
        call (Callable): Takes a function, which it calls whenever it has got on.
        seconds (float, optional): How long it may take to the next sign of life. Defaults to ``PATIENCE``.

    Returns:
        What ``call`` returns; what it raises is raised here.

    Raises:
        TimeoutError: It stalled.
    """
    alive, done, results, errors = threading.Event(), threading.Event(), [], []

    def run() -> None:
        try:
            results.append(call(alive.set))
        except BaseException as e:
            errors.append(e)
        done.set()
        alive.set()

    seconds = PATIENCE if seconds is None else seconds
    threading.Thread(target=run, daemon=True).start()
    while not done.is_set():
        if not alive.wait(seconds):
            raise TimeoutError(errno.ETIMEDOUT, f'it gave nothing for {seconds:g} s')
        alive.clear()
    if errors:
        raise errors[0]
    return results[0]
