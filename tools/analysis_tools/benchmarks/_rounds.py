"""Interleaved timing, so that disturbances of the machine affect all compared functions alike."""
import statistics
import time
from collections.abc import Callable


def measure(ways: dict[str, Callable], repeat: int, what: str, warm_up: int = 0,
            clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Measure the seconds of every function in every round, after warm-up rounds that are not counted.

    With ``clock=time.process_time``, CPU time is measured.
    """
    import torch
    from rich.console import Console
    from rich.progress import track

    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    times = {name: [] for name in ways}
    for number in track(range(-warm_up, repeat), what, transient=True, console=Console(stderr=True)):
        for name, way in ways.items():
            wait()
            start = clock()
            way()
            wait()
            if number >= 0:
                times[name].append(clock() - start)
    return times


def ratio(times: list[float], others: list[float]) -> float:
    """Return the median ratio of times measured in the same round."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def beside(what: str, value: float, at_least: float | None = None, at_most: float | None = None) -> dict:
    """Return a table row with a ratio and its target."""
    row = dict(what=what, figure=f'{value:.2f} x', value=value)
    if at_least is not None:
        row.update(target=f'at least {at_least:.2f} x', met=value >= at_least)
    if at_most is not None:
        row.update(target=f'at most {at_most:.2f} x', met=value <= at_most)
    return row
