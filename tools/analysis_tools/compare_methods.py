"""Run several configs over several seeds and summarize them in one table and one figure.

    python tools/analysis_tools/compare_methods.py CONFIG [CONFIG ...] --out DIR [--seeds 0 1 2]

Each run trains, selects its checkpoint on the dev split, and reads the test split once. Finished runs are not repeated;
interrupted ones are resumed. DIR gets table.md, table.csv and comparison.png, and one folder per run.
"""
import argparse
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Run several configs over seeds: one table, one picture.')
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files, in the order of the rows')
    parser.add_argument('--out', required=True, metavar='DIR', type=Path, help='where runs, table and picture go')
    parser.add_argument('--seeds', nargs='+', action='extend', type=int, metavar='N', help='random seeds (default: 0)')
    add_common_arguments(parser, '--cfg-options', help='change every config')
    parser.add_argument('--max-epochs', type=int, metavar='N', help='train this long, whatever the configs say')
    parser.add_argument('--verbose', action='store_true', help='show the whole log, which is in run.log')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file
    for path in args.configs:
        require_file(path, 'config')
    from vop_mm.engine.run_apart import refuse_options, run_apart
    from vop_mm.visualization.comparison import draw_comparison, summarize, write_tables

    refuse_options(args.cfg_options, {'randomness.seed': '--seeds', 'work_dir': '--out', 'resume': '--out',
                                      **({'train_cfg.max_epochs': '--max-epochs'} if args.max_epochs else {})})
    runs = [(config, seed) for config in args.configs for seed in args.seeds or [0]]
    outcomes: dict[str, list[dict]] = {}
    for number, (config, seed) in enumerate(runs, 1):
        print(f'[{number}/{len(runs)}] {config}, seed {seed}', flush=True)
        outcomes.setdefault(config, []).append(run_apart(
            config, args.out / Path(config).stem / f'seed_{seed}',
            [*(args.cfg_options or []), f'randomness.seed={seed}'], args.max_epochs, verbose=args.verbose))
    rows = [summarize(items) for items in outcomes.values()]
    text = write_tables(rows, args.out)
    draw_comparison(rows, args.out / 'comparison.png')
    print(f'\n{text}\nwrote {args.out}/table.md, table.csv and comparison.png')
    return 0


if __name__ == '__main__':
    run_cli(main)
