"""Render the demo dataset.

    python tools/data/make_demo.py OUT_DIR

Short h264 clips of colored shapes with captions. Most kinds of clips can be distinguished only by the order of frames:
a shape that moves left and its reverse, which moves right. OUT_DIR gets train.json, dev.json, test.json and videos/.
The same settings give the same files; if they exist already, nothing is done.
"""
import argparse
import os
import sys
from pathlib import Path

from vop_mm.utils.cli import run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Render and encode the demo clips and write their annotations.')
    parser.add_argument('out_dir', metavar='OUT_DIR', type=Path, help='folder to make; whole or not there')
    parser.add_argument('--seed', type=int, default=1, help='other seeds give other clips (default: 1)')
    parser.add_argument('--num-train', type=int, default=480, help='training clips, two captions each (default: 480)')
    parser.add_argument('--num-dev', type=int, default=100, help='clips for model selection (default: 100)')
    parser.add_argument('--num-test', type=int, default=300, help='test clips (default: 300)')
    parser.add_argument('--workers', type=int, default=min(2, os.cpu_count() or 1),
                        help='processes that encode (default: 2, on one core 1)')
    args = parser.parse_args()
    if min(args.num_train, args.num_dev, args.num_test, args.workers) < 1 or args.seed < 0:
        parser.error('numbers of clips and workers must be at least 1, the seed at least 0')
    return args


def main() -> int:
    args = parse_args()
    sys.path.append(str(Path(__file__).resolve().parents[2]))  # the demo is not installed
    from demo.shapes.clips import make_clips

    counts = dict(train=args.num_train, dev=args.num_dev, test=args.num_test)
    print(make_clips(args.out_dir, args.seed, counts, args.workers))
    return 0


if __name__ == '__main__':
    run_cli(main)
