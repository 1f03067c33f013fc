"""Measure throughput on this machine.

    python tools/analysis_tools/benchmark.py {decode} ...

Each module of the package ``benchmarks`` next to this file is a subcommand.
"""
import argparse
import datetime
import importlib
import json
import os
import pkgutil
import platform
from pathlib import Path
from types import ModuleType

import benchmarks


def parse_args(modules: dict[str, ModuleType]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure on this machine, beside the targets.')
    commands = parser.add_subparsers(dest='command', required=True)
    for name, module in modules.items():
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        module.add_arguments(command)
        command.add_argument('--json', metavar='FILE', type=Path, help='write the rows here as well')
    return parser.parse_args()


def main() -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name[0] != '_')
    modules = {name: importlib.import_module(f'benchmarks.{name}') for name in names}
    args = parse_args(modules)
    rows = modules[args.command].run(args)
    machine = describe_machine()
    print_table(rows)
    print(', '.join(f'{key}: {value}' for key, value in machine.items()))
    if args.json:
        from vop_mm.utils.files import atomic_write
        with atomic_write(args.json, 'w') as file:
            json.dump(dict(command=args.command, machine=machine, rows=rows), file, indent=1)
    return 0


def print_table(rows: list[dict]) -> None:
    """Print rows as a table; their format is described in the package ``benchmarks``."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for head in ('what', 'measured', 'target', ''):
        table.add_column(head, justify='right' if head == 'measured' else 'left')
    for row in rows:
        met = {True: 'met', False: 'missed', None: ''}[row.get('met')]
        table.add_row(row['what'], row['figure'], row.get('target', ''), met)
    Console(width=None if Console().is_terminal else 120).print(table)


def describe_machine() -> dict[str, str]:
    """Describe the machine, for the interpretation of the results."""
    import torch

    cpus = [line.partition(':')[2].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
            if line.startswith('model name')]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
    return dict(CPU=cpus[0] if cpus else platform.machine(), cores=str(len(os.sched_getaffinity(0))), GPU=gpu,
                torch=torch.__version__, date=datetime.date.today().isoformat())


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
