"""Figure of retrieval results as film strips, framed green if right and red if wrong (Figure 4 of the paper)."""
from pathlib import Path

import numpy as np

from vop_mm.utils.cli import printable
from vop_mm.utils.files import atomic_write

from .film_strips import FilmStrips
from .rankings import Rankings

_GREEN, _RED, _GREY = '#2ca02c', '#d62728', '#888888'


def draw_retrieval(methods: dict[str, Rankings], queries: list[int], strips: FilmStrips, path: str | Path,
                   top_k: int = 1) -> None:
    """Draw one column per method: the best videos of each query and, if it is missed, the true one below.

    All methods are of the same split; queries are rows of their similarity matrices.
    """
    from matplotlib.figure import Figure

    first = next(iter(methods.values()))
    found = {query: [method.top(query, top_k) for method in methods.values()] for query in queries}
    rows = {query: top_k + any(first.text_to_video[query] not in top for top in found[query]) for query in queries}
    strip = max(strips[first.video_ids[i]].shape[1] / strips[first.video_ids[i]].shape[0]
                for tops in found.values() for top in tops for i in top)
    width = 3.4
    heights = [0.45, *(0.35 + rows[query] * (width / strip + 0.22) for query in queries)]
    figure = Figure(figsize=(width * len(methods), sum(heights)))
    head, *parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for i, name in enumerate(methods):
        head.text((i + 0.5) / len(methods), 0.3, printable(name), ha='center', fontweight='bold', parse_math=False)
    for part, query in zip(parts, queries, strict=True):
        truth = int(first.text_to_video[query])
        part.text(0.008, 1, f'“{printable(first.captions[query])}”', va='top', fontsize=9, parse_math=False)
        grid = part.subplots(rows[query], len(methods), squeeze=False)
        height = part.bbox.height / figure.dpi
        part.subplots_adjust(left=0.008, right=0.992, top=1 - 0.22 / height, bottom=0.2 / height, wspace=0.03,
                             hspace=0.35)
        for column, method, top in zip(grid.T, methods.values(), found[query], strict=True):
            for place, (axes, video) in enumerate(zip(column, top, strict=False), 1):
                right = video == truth
                _show(axes, strips[first.video_ids[video]], _GREEN if right else _RED,
                      f'{place}. {"right" if right else "wrong"}')
            for axes in column[len(top):]:
                axes.set_axis_off()
            if truth not in top:
                axes = column[len(top)]
                axes.set_axis_on()
                _show(axes, strips[first.video_ids[truth]], _GREY, f'the true one, at rank {method.rank(query)}')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format='png', dpi=150)


def _show(axes, strip: np.ndarray, color: str, label: str) -> None:
    axes.imshow(strip)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(label, fontsize=7, color=color, labelpad=1)
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=3)
