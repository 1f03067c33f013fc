"""Search the learning rate of each config on the dev split, by the same rule for all configs.

    python tools/analysis_tools/search_learning_rate.py CONFIG [CONFIG ...] --out DIR [--epochs N]

The rule: try the config's rate, half of it and twice of it. As long as the best rate is the lowest or the highest one
tried, also try half or twice of it. The best rate has the highest sum of R@1, R@5 and R@10 in both directions on the
dev split, at the checkpoint that a run keeps; among equal ones, it is the lowest. The test split is never read.
Finished runs are not repeated. DIR gets learning_rates.md and one folder per run.
"""
import argparse
from collections.abc import Callable
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Search learning rates on the dev split, by one rule for all configs.')
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files')
    parser.add_argument('--out', required=True, metavar='DIR', type=Path, help='where runs and table go')
    parser.add_argument('--epochs', type=int, metavar='N', help='train this long, whatever the configs say')
    parser.add_argument('--seed', type=int, default=0, help='random seed of all runs (default: 0)')
    parser.add_argument('--max-runs', type=int, default=8, help='rates to try for a config at most (default: 8)')
    add_common_arguments(parser, '--cfg-options', help='change every config')
    args = parser.parse_args()
    if args.max_runs < 3:
        parser.error('--max-runs must be at least 3')
    return args


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file
    for path in args.configs:
        require_file(path, 'config')
    from vop_mm.config import read_config
    from vop_mm.engine.run_apart import refuse_options, run_apart
    from vop_mm.utils.files import atomic_write

    refuse_options(args.cfg_options, {'randomness.seed': '--seed', 'work_dir': '--out', 'resume': '--out',
                                      **({'train_cfg.max_epochs': '--epochs'} if args.epochs else {})})
    lines = ['| config | dev Rsum by learning rate | chosen |', '|---|---|---:|']
    for path in args.configs:
        name = Path(path).stem
        start = (read_config(path, args.cfg_options).get('optim_wrapper') or {}).get('optimizer', {}).get('lr')
        if start is None:
            raise ValueError(f'{path} has no optim_wrapper.optimizer.lr: there is nothing to search')

        def score(rate: float, path: str = path, name: str = name) -> float:
            print(f'{path}, learning rate {rate:g}', flush=True)
            options = [*(args.cfg_options or []), f'randomness.seed={args.seed}', f'optim_wrapper.optimizer.lr={rate}']
            dev = run_apart(path, args.out / name / f'lr_{rate:g}', options, args.epochs, test=False)['dev']
            return sum(dev[f'{way}/R{k}'] for way in ('t2v', 'v2t') for k in (1, 5, 10))

        scores = climb(score, start, args.max_runs)
        tried = ', '.join(f'{rate:g}: {scores[rate]:.0f}' for rate in sorted(scores))
        lines.append(f'| {name} | {tried} | {best_rate(scores):g} |')
        print(f'{lines[-1]}\n', flush=True)
    text = '\n'.join(lines) + '\n'
    with atomic_write(args.out / 'learning_rates.md', 'w') as file:
        file.write(text)
    print(f'{text}\nwrote {args.out}/learning_rates.md')
    return 0


def climb(score: Callable[[float], float], start: float, max_runs: int) -> dict[float, float]:
    """Score rates around ``start``, and continue in the direction of the best one until the next is worse."""
    scores = {rate: score(rate) for rate in (start / 2, start, start * 2)}
    while len(scores) < max_runs:
        best = best_rate(scores)
        if best == max(scores):
            beyond = best * 2
        elif best == min(scores):
            beyond = best / 2
        else:
            break
        scores[beyond] = score(beyond)
    return scores


def best_rate(scores: dict[float, float]) -> float:
    """Return the rate with the highest score, the lowest one among equals."""
    return max(sorted(scores), key=scores.__getitem__)


if __name__ == '__main__':
    run_cli(main)
