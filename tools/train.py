"""Train a model.

    python tools/train.py CONFIG

Logs and checkpoints are written to the work directory.
"""
import argparse
import os
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a text-video retrieval model.')
    parser.add_argument('config', help='config file, e.g. configs/vop/vop_msrvtt.py')
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue from a checkpoint, or without one from the last in the work directory')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--amp-dtype', choices=('bfloat16', 'float16'),
                        help='precision of --amp (default: bfloat16; float16 needs a GPU)')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate by the global batch over auto_scale_lr.base_batch_size')
    add_common_arguments(parser, '--cfg-options', help='change the config, e.g. '
                         'model.backbone.weights=/path/to/ViT-B-32.pt train_dataloader.batch_size=16')
    add_common_arguments(parser, '--launcher', '--local-rank', '--local_rank')
    args = parser.parse_args()
    if args.amp_dtype and not args.amp:
        parser.error('--amp-dtype requires --amp')
    return args


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file
    require_file(args.config, 'config')
    require_file(None if args.resume == 'auto' else args.resume)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from vop_mm.engine.experiment import build_runner, load_config, use_amp

    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    if args.resume:
        if cfg.get('train_cfg') is None:
            raise ValueError('--resume applies to training, but this config does not train')
        cfg.resume = args.resume
    if args.amp:
        use_amp(cfg, args.amp_dtype or 'bfloat16')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError('--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config')
        cfg.auto_scale_lr.enable = True

    runner = build_runner(cfg)
    if cfg.get('train_cfg') is None:  # zero-shot: there is nothing to train
        runner.logger.info(f'{Path(args.config).name} has nothing to train: evaluating it')
        runner.test()
    else:
        runner.train()
    return 0


if __name__ == '__main__':
    run_cli(main)
