"""Map a function over items in threads, with a bounded number of pending results."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor


def map_ahead(pool: Executor, call: Callable, items: Iterable, count: int) -> Iterator[tuple]:
    """Yield items with the result of a call for each, in order.

    Args:
        pool (Executor): Executor of the calls.
        call (Callable): Function of an item.
        items (Iterable): Items, consumed in the caller's thread whenever there is room for one more.
        count (int): Maximum number of items in progress, or finished and not yet consumed.

    Yields:
        tuple: Item and result.
    """
    waiting = deque()
    for item in items:
        waiting.append((item, pool.submit(call, item)))
        if len(waiting) >= count:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()
