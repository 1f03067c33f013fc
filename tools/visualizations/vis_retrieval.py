"""Draw what some queries find.

    python tools/visualizations/vis_retrieval.py CONFIG OUT.png --features NAME=FILE.npz [NAME=FILE.npz ...]
"""
import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw queries and the videos that each method finds for them.')
    parser.add_argument('config', help='config whose test split the features are of')
    parser.add_argument('out', metavar='OUT.png', type=Path, help='picture to write')
    parser.add_argument('--features', nargs='+', required=True, metavar='NAME=FILE.npz',
                        help='for each method a name and what tools/test.py --dump wrote')
    parser.add_argument('--num-queries', type=int, default=6, help='rows (default: 6)')
    parser.add_argument('--num-frames', type=int, default=6, help='frames of a film strip (default: 6)')
    parser.add_argument('--seed', type=int, default=0, help='which queries (default: 0)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    features = dict(item.split('=', 1) if '=' in item else (Path(item).stem, item) for item in args.features)
    for path in features.values():
        if not Path(path).is_file():
            raise FileNotFoundError(f'features not found: {path}')
    if args.num_queries < 1 or args.num_frames < 1:
        raise ValueError('--num-queries and --num-frames must be at least 1')

    from mmengine.config import Config

    from vop_mm.apis.experiment import parse_options
    from vop_mm.visualization.retrieval_figure import choose_queries, draw_retrieval, load_rankings

    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(parse_options(args.cfg_options or []))
    methods = {name: load_rankings(path) for name, path in features.items()}
    queries = choose_queries(methods, args.num_queries, args.seed)
    draw_retrieval(methods, queries, cfg.test_dataloader.dataset, args.num_frames, args.out)
    print(f'wrote {args.out}')
    return 0


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
