"""Draw the model's input: frames after the whole pipeline, with their times and captions.

    python tools/visualizations/browse_dataset.py CONFIG OUT.png [--split train|val|test]

OUT.png gets one row per sample.
"""
import argparse
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw samples of a data set as the model gets them.')
    parser.add_argument('config', help='config file')
    parser.add_argument('out', metavar='OUT.png', type=Path, help='picture to write')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='(default: train)')
    parser.add_argument('--num-samples', type=int, default=6, metavar='N', help='rows (default: 6)')
    parser.add_argument('--seed', type=int, default=0, help='which samples, and what is random in them (default: 0)')
    parser.add_argument('--epoch', type=int, default=0, help='of training, from 0: changes what is random (default: 0)')
    add_common_arguments(parser, '--cfg-options')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file
    require_file(args.config, 'config')
    if args.num_samples < 1:
        raise ValueError(f'--num-samples must be at least 1, got {args.num_samples}')

    from vop_mm.config import read_config
    from vop_mm.visualization.dataset_figure import draw_samples, load_samples

    cfg = read_config(args.config, args.cfg_options)
    loader = cfg.get(f'{args.split}_dataloader')
    if loader is None:
        raise ValueError(f'{args.config} has no {args.split} split')
    samples = load_samples(loader.dataset, args.num_samples, args.seed, args.epoch)
    draw_samples(samples, args.out)
    print(f'wrote {args.out}: {len(samples)} samples of {args.split}')
    return 0


if __name__ == '__main__':
    run_cli(main)
