"""Evaluate a model.

    python tools/test.py CONFIG [CHECKPOINT]

A config that does not train needs no checkpoint.
"""
import argparse
import os

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a text-video retrieval model on its test split.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='trained checkpoint; none for a config that does not train')
    parser.add_argument('--work-dir', help='where the log goes (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--json', metavar='FILE', help='write the metrics here as well')
    parser.add_argument('--dump', metavar='FILE.npz', help='write embeddings and ids here, to be scored again later')
    parser.add_argument('--postprocess', nargs='+', action='extend', default=[], choices=('dsl', 'sinkhorn', 'qbnorm'),
                        help='rows with post-processed similarities, apart from the plain ones')
    parser.add_argument('--query-bank', metavar='FILE.npz', help='for qbnorm: --dump of the training split')
    add_common_arguments(parser, '--bootstrap', '--cfg-options', '--launcher', '--local-rank', '--local_rank')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file, require_folder
    require_file(args.config, 'config')
    require_file(args.checkpoint)
    require_file(args.query_bank, 'query bank')
    for path in (args.json, args.dump):
        require_folder(path)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from vop_mm.engine.experiment import evaluate
    evaluate(args.config, args.checkpoint, args.cfg_options, args.work_dir, args.launcher, args.json, dump=args.dump,
             postprocess=args.postprocess, query_bank=args.query_bank, bootstrap=args.bootstrap)
    return 0


if __name__ == '__main__':
    run_cli(main)
