"""Draw the results of some queries with each method, as a picture and an HTML page.

    python tools/visualizations/vis_retrieval.py CONFIG OUT.png --checkpoints NAME=CONFIG[:CHECKPOINT] ...
    python tools/visualizations/vis_retrieval.py CONFIG OUT.png --features NAME=FILE.npz ...

The page is written to OUT.html, next to OUT.png.
"""
import argparse
from functools import partial
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw queries and the videos that each method finds for them.')
    parser.add_argument('config', help='config whose test split the queries and videos are of')
    parser.add_argument('out', metavar='OUT.png', type=Path, help='picture to write; OUT.html comes beside it')
    parser.add_argument('--checkpoints', nargs='+', action='extend', default=[], metavar='NAME=CONFIG[:CHECKPOINT]',
                        help='models to evaluate; without a checkpoint: a config that trains nothing')
    parser.add_argument('--features', nargs='+', action='extend', default=[], metavar='NAME=FILE.npz',
                        help='what tools/test.py --dump wrote')
    parser.add_argument('--top-k', type=int, default=1, metavar='K', help='videos of each method (default: 1)')
    parser.add_argument('--num-queries', type=int, default=6, metavar='N', help='(default: 6)')
    parser.add_argument('--num-frames', type=int, default=6, metavar='N', help='frames of a film strip (default: 6)')
    parser.add_argument('--seed', type=int, default=0, help='which queries (default: 0)')
    add_common_arguments(parser, '--cfg-options', help='change all configs')
    args = parser.parse_args()
    if args.out.suffix != '.png':
        parser.error(f'the picture is a .png file, got {args.out}')
    if not args.checkpoints and not args.features:
        parser.error('name at least one method with --checkpoints or --features')
    return args


def main() -> int:
    args = parse_args()
    for name in ('top_k', 'num_queries', 'num_frames'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} must be at least 1, got {getattr(args, name)}')
    models = {name: value.partition(':')[::2] for name, value in map(_named, args.checkpoints)}
    features = dict(map(_named, args.features))
    for path in [*features.values(), *(path for pair in models.values() for path in pair if path)]:
        if not Path(path).is_file():
            raise FileNotFoundError(f'file not found: {path}')

    from vop_mm.config import read_config
    from vop_mm.engine.experiment import evaluate
    from vop_mm.engine.run_apart import run_in_process
    from vop_mm.utils.files import temporary_folder
    from vop_mm.visualization.film_strips import FilmStrips
    from vop_mm.visualization.rankings import choose_queries, load_rankings
    from vop_mm.visualization.retrieval_figure import draw_retrieval
    from vop_mm.visualization.retrieval_page import write_page

    cfg = read_config(args.config, args.cfg_options)
    with temporary_folder(None, 'vis_retrieval') as folder:
        for name, (config, checkpoint) in models.items():
            print(f'evaluating {name}', flush=True)
            dump = features[name] = str(folder / f'{len(features)}.npz')
            run_in_process(partial(evaluate, config, checkpoint or None, args.cfg_options, str(folder), dump=dump),
                           folder / 'log', f'evaluating {config}')
        # in the order of the command line
        methods = {name: load_rankings(features[name]) for name in [*models, *dict(map(_named, args.features))]}
    queries = choose_queries(methods, args.num_queries, args.seed)
    strips = FilmStrips(cfg.test_dataloader.dataset, args.num_frames)
    draw_retrieval(methods, queries, strips, args.out, args.top_k)
    page, title = args.out.with_suffix('.html'), f'What {len(queries)} queries find: {Path(args.config).stem}'
    write_page(methods, queries, strips, page, title, args.top_k)
    print(f'wrote {args.out} and {page}')
    return 0


def _named(item: str) -> tuple[str, str]:
    return tuple(item.split('=', 1)) if '=' in item else (Path(item).stem, item)


if __name__ == '__main__':
    run_cli(main)
