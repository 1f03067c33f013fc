"""Working ahead in threads, by so much and no more."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor


def look_ahead(pool: Executor, call: Callable, items: Iterable, count: int) -> Iterator[tuple]:
    """Items with what a call makes of each, in their order.

    Args:
        pool (Executor): Where the calls run.
        call (Callable): Takes an item.
        items (Iterable): Taken from in the caller's thread, when there is room for one more.
        count (int): How many are worked on, or done and not asked for yet.

    Yields:
        tuple: Item, result.
    """
    waiting = deque()
    for item in items:
        waiting.append((item, pool.submit(call, item)))
        if len(waiting) >= count:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()
