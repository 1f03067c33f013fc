"""Run several configs over seeds and put them into one table and one picture.

    python tools/analysis_tools/compare_methods.py CONFIG [CONFIG ...] --out DIR [--seeds 0 1 2]

Each run trains, picks its checkpoint on the dev split, and reads the test split once. What is there is not run again;
what was interrupted goes on. DIR gets table.md, table.csv and comparison.png beside one folder per run.
"""
import argparse
import multiprocessing
import os
import re
import sys
import time
from pathlib import Path
from typing import TextIO

_SHOWN = (('loss', 'loss', '.3f'), ('t2v/R1', 't2v R@1', '.1f'), ('v2t/R1', 'v2t R@1', '.1f'),
          ('pair_accuracy', 'pair accuracy', '.1f'))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Run several configs over seeds: one table, one picture.')
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files, in the order of the rows')
    parser.add_argument('--out', required=True, metavar='DIR', type=Path, help='where runs, table and picture go')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='random seeds (default: 0)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change every config')
    parser.add_argument('--max-epochs', type=int, metavar='N', help='train this long, whatever the configs say')
    parser.add_argument('--verbose', action='store_true', help='show the whole log, which is in run.log')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    for path in args.configs:
        if not Path(path).is_file():
            raise FileNotFoundError(f'config not found: {path}')
    from vop_mm.visualization.comparison import draw_comparison, summarise, write_tables

    runs = [(config, seed) for config in args.configs for seed in args.seeds]
    outcomes: dict[str, list[dict]] = {}
    for number, (config, seed) in enumerate(runs, 1):
        print(f'[{number}/{len(runs)}] {config}, seed {seed}', flush=True)
        outcomes.setdefault(config, []).append(_run_apart(config, seed, args))
    rows = [summarise(items) for items in outcomes.values()]
    text = write_tables(rows, args.out)
    draw_comparison(rows, args.out / 'comparison.png')
    print(f'\n{text}\nwrote {args.out}/table.md, table.csv and comparison.png')
    return 0


def _run_apart(config: str, seed: int, args: argparse.Namespace) -> dict:
    """One run in a process of its own: MMEngine keeps loggers and hubs for a process's life."""
    import json

    from vop_mm.apis.experiment import load_config, shorten

    folder = args.out / Path(config).stem / f'seed_{seed}'
    result = folder / 'result.json'
    cfg = load_config(config, [*(args.cfg_options or []), f'randomness.seed={seed}'], str(folder))
    if args.max_epochs:
        shorten(cfg, args.max_epochs)
    _claim(folder, cfg)
    if result.is_file():
        print(f'    is there: {result}', flush=True)
        return json.loads(result.read_text())
    log = folder / 'run.log'
    # forked, so that the libraries are imported once
    process = multiprocessing.get_context('fork').Process(target=_run, args=(cfg, result, log))
    process.start()
    with log.open('w+') as file:
        _follow(process, file, args.verbose)
    if process.exitcode != 0 or not result.is_file():
        errors = [line for line in log.read_text().splitlines() if line.startswith('error: ')]
        raise RuntimeError(f'{config} with seed {seed} failed: {errors[-1][7:] if errors else "see " + str(log)}')
    return json.loads(result.read_text())


def _claim(folder: Path, cfg) -> None:
    """Leave the config in a run's folder, or refuse a folder that another config was run in."""
    import json

    from vop_mm.utils.files import atomic_write
    settings = {key: value for key, value in cfg.to_dict().items() if key != 'work_dir'}
    text = json.dumps(settings, indent=1, sort_keys=True, default=str)
    file = folder / 'config.json'
    if not file.is_file():
        with atomic_write(file, 'w') as out:
            out.write(text)
    elif file.read_text() != text:
        raise ValueError(f'{folder} holds a run of another config than {cfg.filename} is now: remove it, or name '
                         'another --out')


def _run(cfg, result: Path, log: Path) -> None:
    from vop_mm.apis.experiment import run_experiment
    from vop_mm.utils.cli import run_cli
    with log.open('a') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    run_cli(lambda: run_experiment(cfg, result, dump=result.with_name('test_features.npz')) and None)


def _follow(process: multiprocessing.Process, log: TextIO, verbose: bool) -> None:
    """Print what a run writes to its log, or of that a line for every epoch and evaluation, until it ends."""
    rest = ''
    while True:
        alive = process.is_alive()
        *lines, rest = (rest + log.read()).split('\n')
        for line in lines:
            if verbose:
                print(line, flush=True)
            elif found := re.search(r'Epoch\((train|val|test)\) (?:\[(\d+)\])?\[ *(\d+)/(\d+)\] (.*)', line):
                part, epoch, step, steps, values = found.groups()
                values = dict(re.findall(r'(\S+): (\S+)', values))
                shown = [f'{name} {float(values[key]):{form}}' for key, name, form in _SHOWN if key in values]
                if step == steps and shown:
                    print(f'    {part if epoch is None else f"epoch {epoch}, {part}"}: {", ".join(shown)}', flush=True)
        if not alive:
            break
        time.sleep(0.3)
    process.join()


if __name__ == '__main__':
    # without this the parent's output is mixed into the children's when both go to a file
    sys.stdout.reconfigure(line_buffering=True)
    from vop_mm.utils.cli import run_cli
    run_cli(main)
