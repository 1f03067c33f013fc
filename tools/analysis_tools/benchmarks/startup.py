"""Startup: time of imports in addition to torch, and time until --help is printed.

Every command runs in its own process, in turn, many times. The results are medians; for imports, the median difference
to torch in the same round. If there are several rounds, the first is not counted: it fills the file system cache.
"""
import argparse
import statistics
import subprocess
import sys

from ._models import ROOT
from ._rounds import measure

TORCH = 'import torch'
IMPORTS = ('vop_mm', 'vop_mm.engine.experiment')
TOOLS = ('tools/train.py', 'tools/test.py')
MAX_SECONDS = 3.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument('--repeat', type=int, default=5, metavar='N', help='rounds (default: 5)')


def run(args: argparse.Namespace) -> list[dict]:
    """Run the benchmark and return the rows of the table."""
    if args.repeat < 1:
        raise ValueError(f'--repeat must be at least 1, got {args.repeat}')
    commands = {TORCH: ['-c', TORCH], **{name: ['-c', f'{TORCH}, {name}'] for name in IMPORTS},
                **{name: [str(ROOT / name), '--help'] for name in TOOLS}}
    times = measure({name: lambda command=command: _python(command) for name, command in commands.items()},
                    args.repeat, 'starting', warm_up=int(args.repeat > 1))
    torch_alone = statistics.median(times[TORCH])
    rows = [dict(what=TORCH, figure=f'{torch_alone:.2f} s', value=torch_alone)]
    for name in IMPORTS:
        beyond = statistics.median(a - b for a, b in zip(times[name], times[TORCH], strict=True))
        rows.append(_row(f'import {name}, beyond torch', beyond))
    return rows + [_row(f'{name} --help', statistics.median(times[name])) for name in TOOLS]


def _row(what: str, seconds: float) -> dict:
    return dict(what=what, figure=f'{seconds:.2f} s', value=seconds, target=f'less than {MAX_SECONDS:g} s',
                met=seconds < MAX_SECONDS)


def _python(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
