"""Models for the benchmarks, built from configs with random weights, which cost the same as trained ones."""
import argparse
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments

ROOT = Path(__file__).resolve().parents[3]


def add_arguments(parser: argparse.ArgumentParser, configs: list[str], batch_size: int, repeat: int) -> None:
    """Add the arguments that both subcommands share."""
    parser.add_argument('configs', nargs='*', metavar='CONFIG', default=[str(ROOT / path) for path in configs],
                        help=f'config files (default: {" ".join(configs)})')
    parser.add_argument('--arch', help='another open_clip architecture for all of them, e.g. ViT-B-16-quickgelu')
    parser.add_argument('--batch-size', type=int, default=batch_size, metavar='N',
                        help=f'videos at a time (default: {batch_size})')
    parser.add_argument('--repeat', type=int, default=repeat, metavar='N', help=f'rounds (default: {repeat})')
    parser.add_argument('--device', help='cuda or cpu (default: cuda where there is one)')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32',
                        help='other than float32: autocast (default: float32)')
    add_common_arguments(parser, '--cfg-options',
                         help='change every config: model.recompute=True, model.backbone.compile=True')


def build_models(args: argparse.Namespace) -> dict:
    """Build the retrievers of the configs on the CPU, by the name of their method."""
    import torch

    from vop_mm.config import read_config
    from vop_mm.registry import MODELS
    from vop_mm.utils import register_all_modules

    for name in ('batch_size', 'repeat'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} must be at least 1, got {getattr(args, name)}')
    args.device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    register_all_modules()
    models = {}
    for path in args.configs:
        cfg = read_config(path, args.cfg_options)
        cfg.model.backbone.weights = None
        if args.arch:
            cfg.model.backbone.arch = args.arch
        if len({cfg.model.num_frames, getattr(args, 'num_frames', cfg.model.num_frames)}) > 1:
            raise ValueError(f'{path} has {cfg.model.num_frames} frames, those before it {args.num_frames}')
        args.num_frames = cfg.model.num_frames
        torch.manual_seed(0)
        models[cfg.get('method') or Path(path).stem] = MODELS.build(cfg.model)
    return models


def random_batch(model, args: argparse.Namespace):
    """Return frames [B, F, 3, H, W] and captions of full length [B, L] on the device."""
    import torch

    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(args.batch_size, args.num_frames, 3, *model.backbone.image_size, generator=generator)
    tokens = torch.randint(1, 20, (args.batch_size, model.backbone.context_length), generator=generator)
    tokens[:, -1] = 30  # the largest id is end of text
    return frames.to(args.device), tokens.to(args.device)


def precision(args: argparse.Namespace):
    """Return the autocast context for the measured computation."""
    import torch

    dtype = getattr(torch, args.dtype)
    return torch.autocast(args.device.type, dtype=dtype, enabled=dtype is not torch.float32)
