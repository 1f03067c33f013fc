"""Change inputs and see what reads them: python -m tests.fuzz --kind sqlite --count 1000 --seed 0"""
import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.kinds import MODULES

_SHOWN = 20  # failures of a kind


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m tests.fuzz', description=__doc__.partition(':')[0])
    parser.add_argument('--kind', nargs='+', choices=list(MODULES), default=list(MODULES), help='default: all')
    parser.add_argument('--count', type=int, default=1000, help='inputs of each kind (default: 1000)')
    parser.add_argument('--first', type=int, default=0, metavar='N', help='number of the first input (default: 0)')
    parser.add_argument('--seed', type=int, default=0, help='default: 0')
    parser.add_argument('--out', type=Path, help='keep inputs that fail in this folder')
    parser.add_argument('--verbose', action='store_true', help='a line for every input')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from tests.fuzz.harness import make_input, run_case
    from tests.fuzz.kinds import load_kind
    from tests.fuzz.world import World
    from tests.zygote import import_what_tools_do

    import_what_tools_do()
    table, failed = [], 0
    with tempfile.TemporaryDirectory(prefix='fuzz') as work:
        world = World(Path(work) / 'world')
        kinds = [load_kind(name) for name in args.kind]
        for kind in kinds:
            kind.prepare(world)
        world.canaries.arm()
        gc.collect()
        gc.freeze()  # what is there is there for all inputs: children need not look through it
        for kind in kinds:
            begin, counts, failures = time.monotonic(), Counter(), []
            world.counts.clear()
            for number in range(args.first, args.first + args.count):
                seed = f'{kind.name} {args.seed} {number}'
                started = time.monotonic()
                outcome = run_case(kind, seed, world, Path(work) / 'input')
                counts[outcome.verdict] += 1
                if outcome.is_failure:
                    failures.append(dict(number=number, **vars(outcome)))
                    if args.out is not None:
                        folder = args.out / f'{kind.name}_{args.seed}_{number}'
                        shutil.rmtree(folder, ignore_errors=True)
                        make_input(kind, seed, world, folder)
                        (folder / 'outcome.json').write_text(json.dumps(failures[-1], indent=1))
                if args.verbose or outcome.is_failure and len(failures) <= _SHOWN:
                    print(f'{kind.name} {number}: {outcome.verdict}: {outcome.detail[:300]}\n    {outcome.about[:300]} '
                          f'({time.monotonic() - started:.1f} s)', flush=True)
                if (number + 1) % 100 == 0:
                    print(f'{kind.name}: {number + 1 - args.first} of {args.count}, {len(failures)} failures, '
                          f'{time.monotonic() - begin:.0f} s', file=sys.stderr, flush=True)
            bad = {verdict: count for verdict, count in counts.items() if verdict not in ('accepted', 'refused')}
            table.append((kind.name, sum(counts.values()), counts['accepted'], counts['refused'], len(failures),
                          ', '.join(f'{count} {what}' for what, count in [*sorted(bad.items()), *world.counts.items()]),
                          f'{time.monotonic() - begin:.0f} s'))
            failed += len(failures)
    for row in [('kind', 'tried', 'accepted', 'refused', 'failures', '', 'time'), *table]:
        print(f'{row[0]:<20}{row[1]:>7}{row[2]:>10}{row[3]:>9}{row[4]:>10}{row[6]:>8}  {row[5]}')
    return int(failed > 0)


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
