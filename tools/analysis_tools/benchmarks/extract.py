"""Embedding videos: each method compared with open_clip's own encode_image on the same frames.

The targets follow from the ratio of counted operations. Weights are random, and all models embed the same batch in
turn.
"""
import argparse
import copy

from ._models import add_arguments as add_model_arguments
from ._models import build_models, precision, random_batch
from ._rounds import beside, measure, ratio

PLAIN = 'open_clip encode_image'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    add_model_arguments(parser, [f'configs/vop/{name}_msrvtt.py' for name in
                                 ('vop', 'vop_p', 'vop_c', 'vop_f', 'vop_f_p', 'vop_f_c')], batch_size=8, repeat=5)


def run(args: argparse.Namespace) -> list[dict]:
    """Run the benchmark and return the rows of the table."""
    import open_clip
    import torch

    models = {name: model.eval().to(args.device) for name, model in build_models(args).items()}
    first = next(iter(models.values()))
    if not isinstance(first.backbone.arch, str):
        raise ValueError('open_clip itself has no such architecture: name one with --arch')
    plain = open_clip.create_model(first.backbone.arch, pretrained=None).eval().to(args.device)
    frames, _ = random_batch(first, args)
    pictures = frames.flatten(0, 1)  # [B, F, 3, H, W] -> [B * F, 3, H, W]
    ways = {PLAIN: lambda: plain.encode_image(pictures, normalize=True)}
    ways.update({name: (lambda model=model: model.encode_video(frames)) for name, model in models.items()})
    with torch.inference_mode(), precision(args):
        times = measure(ways, args.repeat, 'embedding', warm_up=1)
    operations = {PLAIN: count(plain, 'encode_image', pictures)}
    operations.update({name: count(model, 'encode_video', frames) for name, model in models.items()})
    rows = [dict(what=name, figure=f'{args.batch_size / min(times[name]):.2f} videos/s',
                 value=args.batch_size / min(times[name])) for name in ways]
    for name in models:
        share, value = operations[name] / operations[PLAIN], ratio(times[name], times[PLAIN])
        rows.append(beside(f'{name}: time, by open_clip\'s ({share:.3f} x its operations)', value,
                           at_most=1.05 * share))
    return rows


def count(model, method: str, frames) -> int:
    """Count the floating point operations of a model's method on the meta device; LSTMs are counted only there."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = copy.deepcopy(model).to('meta')
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:  # else attention's fast path isn't counted
        getattr(model, method)(frames.to('meta'))
    return counter.get_total_flops()
