"""Comparison of methods in a table, and as R@1 over trainable parameters as in Figure 1 of the paper."""
import csv
import io
import statistics
from pathlib import Path

from vop_mm.utils.files import atomic_write

# of retrieval, shown first and in this order, if a run has them
METRICS = ('t2v/R1', 't2v/R5', 't2v/R10', 't2v/MdR', 't2v/MnR', 'v2t/R1', 'v2t/R5', 'v2t/R10', 'v2t/MdR', 'v2t/MnR')


def summarize(outcomes: list[dict]) -> dict:
    """Summarize results of :func:`vop_mm.engine.experiment.run_experiment`, one per seed, as one row.

    Returns:
        dict: ``method, config, seeds, trainable, checkpoint_bytes, seconds`` (mean training time) and, for each metric,
        ``(mean, standard deviation)``; the deviation of a single run is 0.
    """
    first = outcomes[0]
    row = dict(method=first['method'] or Path(first['config']).stem, config=first['config'],
               seeds=[o['seed'] for o in outcomes], trainable=first['trainable'],
               checkpoint_bytes=first['checkpoint_bytes'],
               seconds=statistics.mean(o['train_seconds'] for o in outcomes))
    for key in [*METRICS, *_totals(first['metrics']), *_parts(first['metrics'])]:
        values = [o['metrics'][key] for o in outcomes if key in o['metrics']]
        if len(values) == len(outcomes):
            row[key] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.)
    return row


def write_tables(rows: list[dict], folder: str | Path) -> str:
    """Write ``table.md`` and ``table.csv``.

    Args:
        rows (list[dict]): Rows of :func:`summarize`.
        folder (str | Path): Output folder.

    Returns:
        str: The markdown table.
    """
    found = dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, tuple))
    totals, parts = _totals(found), _parts(found)
    metrics = [key for key in METRICS if any(key in row for row in rows)] + totals
    several = any(len(row['seeds']) > 1 for row in rows)

    def cell(row: dict, key: str) -> str:
        if key not in row:
            return '-'
        mean, deviation = row[key]
        return f'{mean:.1f} ± {deviation:.1f}' if several else f'{mean:.1f}'

    head = ['method', 'parameters', *(key.replace('/R', ' R@').replace('_', ' ') if '/R' in key
                                      else key.replace('/', ' ').replace('_', ' ') for key in metrics), 'training s']
    markdown = _markdown([head, *(
        [row['method'], f'{row["trainable"]:,}', *(cell(row, key) for key in metrics), f'{row["seconds"]:.0f}']
        for row in rows)])
    for total in totals:
        own = [key for key in parts if key.startswith(f'{total}/')]
        if own:
            head = [f'{total} by kind'.replace('_', ' '), *(key.partition('/')[2] for key in own)]
            markdown += '\n' + _markdown([head, *([row['method'], *(cell(row, key) for key in own)] for row in rows)])
    metrics += parts

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(['method', 'config', 'seeds', 'trainable', 'checkpoint_bytes', 'train_seconds',
                     *(f'{key} {what}' for key in metrics for what in ('mean', 'std'))])
    for row in rows:
        writer.writerow([row['method'], row['config'], len(row['seeds']), row['trainable'], row['checkpoint_bytes'],
                         round(row['seconds'], 1), *(x for key in metrics for x in row.get(key, ('', '')))])
    with atomic_write(Path(folder) / 'table.md', 'w') as file:
        file.write(markdown)
    with atomic_write(Path(folder) / 'table.csv', 'w') as file:
        file.write(text.getvalue())
    return markdown


def _totals(metrics: dict) -> list[str]:
    """Return the keys of metrics other than those of retrieval, which have no slash."""
    return [key for key in metrics if '/' not in key]


def _parts(metrics: dict) -> list[str]:
    """Return the keys of metrics of each kind of video, ``TOTAL/KIND``."""
    return [key for key in metrics if key.partition('/')[0] in metrics and '/' in key]


def _markdown(lines: list[list[str]]) -> str:
    """Format a table that is also readable in a terminal; the first line is its header."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ['| ' + ' | '.join(cell.ljust(w) if i == 0 else cell.rjust(w)
                              for i, (cell, w) in enumerate(zip(line, widths, strict=True))) + ' |' for line in lines]
    text.insert(1, '|' + '|'.join('-' * (w + 1) + ('-' if i == 0 else ':') for i, w in enumerate(widths)) + '|')
    return '\n'.join(text) + '\n'


def draw_comparison(rows: list[dict], path: str | Path) -> None:
    """Draw text-to-video R@1 over the number of trainable parameters, on a logarithmic axis, into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = []
    # zero-shot has no position on a logarithmic axis: it is drawn as a baseline
    for row in rows:
        mean, deviation = row['t2v/R1']
        if row['trainable'] == 0:
            axes.axhline(mean, color='0.6', linestyle='--', zorder=0)
            axes.annotate(row['method'], (1, mean), xycoords=('axes fraction', 'data'), xytext=(-4, 3),
                          textcoords='offset points', ha='right', color='0.4')
            continue
        color = 'tab:red' if row['method'].startswith('VoP') else 'tab:blue'
        axes.errorbar(row['trainable'], mean, yerr=deviation or None, fmt='o', color=color, capsize=3)
        line = dict(arrowstyle='-', color='0.6', linewidth=0.6, shrinkA=0, shrinkB=4)
        labels.append(axes.annotate(row['method'], (row['trainable'], mean), xytext=(7, 5), textcoords='offset points',
                                    fontsize=9, arrowprops=line))
    axes.set_xscale('log')
    axes.set_xlabel('trainable parameters')
    axes.set_ylabel('text-to-video R@1 (%)')
    axes.grid(alpha=0.3)
    axes.margins(x=0.15, y=0.12)
    canvas.draw()  # computes the layout
    figure.set_layout_engine('none')
    _spread(labels, axes, canvas.get_renderer())
    with atomic_write(path) as file:
        figure.savefig(file, format='png', dpi=150)


def _spread(labels: list, axes, renderer) -> None:
    """Move each label to the position nearest to its point where it covers no point and no other label."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform([a.xy for a in labels])]
    for label in labels:
        for up in (5, -12, 20, -27, 35, -42, 50, -57):
            for right, align in ((7, 'left'), (-7, 'right')):
                label.set_position((right, up))
                label.set_ha(align)
                label.update_positions(renderer)
                box = Text.get_window_extent(label, renderer)  # the annotation's own would include the line
                inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
                if inside and not any(box.overlaps(other) for other in taken):
                    break
            else:
                continue
            break
        taken.append(box)
