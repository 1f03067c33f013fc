"""Time limits for reads that may block forever, such as from a network drive whose server is gone."""
import errno
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar('T')
PATIENCE = 60.  # seconds for a disk or network drive to return the next part of a file or folder


def call_unless_stalled(call: Callable[[Callable[[], None]], T], seconds: float | None = None) -> T:
    """Call a function as long as it makes progress.

    It runs in its own thread. If it stalls, the thread is abandoned: nothing can end a read that blocks in the system.

    Args:
        call (Callable): Function that takes a callback, and calls it whenever it has made progress.
        seconds (float, optional): Maximum seconds between two signs of progress. Defaults to ``PATIENCE``.

    Returns:
        The result of ``call``; its exceptions are raised here.

    Raises:
        TimeoutError: The call stalled.
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
            raise TimeoutError(errno.ETIMEDOUT, f'no answer for {seconds:g} s')
        alive.clear()
    if errors:
        raise errors[0]
    return results[0]
