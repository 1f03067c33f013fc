"""What a profiler's trace says of a training loop: when the host waits for data and computes, when the GPU does."""
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# how the loop names its parts in the trace
STEP, WAIT = 'training step', 'waiting for data'
_BACKWARD, _OPTIMISER = 'autograd::engine::evaluate_function', 'Optimizer.step'

Interval = tuple[float, float]


class Timeline(NamedTuple):
    """Intervals in seconds, from the start of the first wait for data.

    Attributes:
        waits (list): Of the host, for data.
        steps (list): Of the host, from having the data to having called all hooks.
        forward, backward, optimiser, rest (list): Operations of the host within steps; the rest is what comes behind
            the optimiser: hooks, the log.
        kernels (list): Of the GPU.
        copies_back (int): Copies from the GPU to the host.
    """
    waits: list[Interval]
    steps: list[Interval]
    forward: list[Interval]
    backward: list[Interval]
    optimiser: list[Interval]
    rest: list[Interval]
    kernels: list[Interval]
    copies_back: int


def read_trace(trace: dict) -> Timeline:
    """Sort out what ``torch.profiler`` exports.

    Args:
        trace (dict): A Chrome trace: ``traceEvents`` with ``ph, cat, name, ts`` and ``dur`` in microseconds.

    Returns:
        Timeline: In the order of time.

    Raises:
        ValueError: There is no step in it.
    """
    events = sorted((e for e in trace['traceEvents'] if e.get('ph') == 'X'), key=lambda e: e['ts'])

    def named(name: str, *categories: str) -> list[dict]:
        return [e for e in events if e.get('cat') in categories and e['name'].startswith(name)]

    marked_steps, waits = named(STEP, 'user_annotation'), named(WAIT, 'user_annotation')
    if not marked_steps:
        raise ValueError('the trace holds no training step')
    backward = named(_BACKWARD, 'cpu_op')
    optimiser = named(_OPTIMISER, 'user_annotation', 'cpu_op')
    zero = min(e['ts'] for e in (*waits, *marked_steps))

    def seconds(some: Iterable[dict]) -> list[Interval]:
        return [((e['ts'] - zero) / 1e6, (e['ts'] + e['dur'] - zero) / 1e6) for e in some]

    # threads of data loaders have operations as well, which are no part of a step
    threads = {e['tid'] for e in (*marked_steps, *backward)}
    operations = seconds(e for e in named('', 'cpu_op') if e['tid'] in threads)
    steps, backward, optimiser = seconds(marked_steps), union(seconds(backward)), union(seconds(optimiser))
    forward, rest = [], []
    for start, end in steps:
        turn = min((b for b in backward if start <= b[0] < end), default=(end, end))[0]
        update = max((o for o in optimiser if start <= o[0] < end), default=(turn, turn))[1]
        forward += [o for o in operations if start <= o[0] < turn]
        rest += [o for o in operations if max(turn, update) <= o[0] < end and not _within(o, backward)]
    return Timeline(seconds(waits), steps, union(forward), backward, optimiser, union(rest),
                    union(seconds(named('', 'kernel'))), sum('DtoH' in e['name'] for e in named('', 'gpu_memcpy')))


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time, in intervals that don't overlap, in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def busy_share(intervals: Iterable[Interval], start: float, end: float) -> float:
    """Share of the time from start to end that lies in one interval at least, 0..1."""
    inside = sum(min(b, end) - max(a, start) for a, b in union(intervals) if b > start and a < end)
    return inside / (end - start)


def gpu_busy(timeline: Timeline) -> float:
    """Share of the time in which a kernel ran, from the first wait for data to the end of all work, 0..1."""
    start = min(a for a, _ in (*timeline.waits, *timeline.steps))
    return busy_share(timeline.kernels, start, max(b for _, b in (*timeline.steps, *timeline.kernels)))


def draw(timeline: Timeline, path: Path, title: str, steps: int = 2) -> None:
    """Draw what happens when, over a few steps in the middle.

    Args:
        timeline (Timeline): From :func:`read_trace`.
        path (Path): A PNG file.
        title (str): Above it.
        steps (int): How many. Defaults to 2.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    from vop_mm.utils.files import atomic_write

    first = max((len(timeline.steps) - steps) // 2, 0)
    shown = timeline.steps[first:first + steps]
    before = [a for a, b in timeline.waits if b <= shown[0][0]]
    start, end = (before or [shown[0][0]])[-1], shown[-1][1]
    rows = [('waiting for data', timeline.waits, '#c44e52'), ('forward, loss', timeline.forward, '#4c72b0'),
            ('backward', timeline.backward, '#8172b3'), ('optimiser', timeline.optimiser, '#937860'),
            ('hooks, log', timeline.rest, '#8c8c8c'), ('GPU: kernels', timeline.kernels, '#55a868')]
    figure, axes = pyplot.subplots(figsize=(9, 2.6), dpi=110, layout='constrained')
    for row, (_, intervals, color) in enumerate(rows):
        bars = [(1000 * (a - start), 1000 * (b - a)) for a, b in intervals if b > start and a < end]
        axes.broken_barh(bars, (row - 0.38, 0.76), color=color, linewidth=0)
    if not timeline.kernels:
        axes.text(500 * (end - start), len(rows) - 1, 'no GPU here: nothing to see', ha='center', va='center')
    for step, _ in shown:
        axes.axvline(1000 * (step - start), color='black', linewidth=0.6, linestyle=':')
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1000 * (end - start))
    axes.set_xlabel(f'ms; {len(shown)} steps')
    axes.set_title(title, fontsize=10, loc='left')
    with atomic_write(path) as file:
        figure.savefig(file, format='png')
    pyplot.close(figure)


def _within(interval: Interval, others: list[Interval]) -> bool:
    return any(a <= interval[0] and interval[1] <= b for a, b in others)
