"""Both towers in onnxruntime, compared with PyTorch on the CPU, with the same inputs and number of threads.

Weights are random, which cost the same as trained ones. Frames are uint8 and normalized in both cases. Captions have 12
tokens of 77: PyTorch gets them cut after the last end of text, as everywhere in this project; the ONNX model cuts them
itself.
"""
import argparse
import time

from vop_mm.utils.cli import add_common_arguments

from ._models import ROOT, build_models
from ._rounds import beside, measure, ratio

CONFIGS = [f'configs/vop/{name}_msrvtt.py' for name in ('vop', 'vop_c', 'vop_f_c')]
CAPTION = 12  # number of tokens, including start and end of text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument('configs', nargs='*', metavar='CONFIG', default=[str(ROOT / path) for path in CONFIGS],
                        help='config files; captions are measured with the first of them, the text tower of all of '
                        f'VoP being the same (default: {" ".join(CONFIGS)})')
    parser.add_argument('--arch', help='another open_clip architecture for all of them, e.g. ViT-B-16-quickgelu')
    parser.add_argument('--batch-size', type=int, default=2, metavar='N', help='videos at a time (default: 2)')
    parser.add_argument('--captions', type=int, nargs='+', default=[1, 32], metavar='N',
                        help='captions at a time (default: 1 32)')
    parser.add_argument('--repeat', type=int, default=5, metavar='N', help='rounds (default: 5)')
    add_common_arguments(parser, '--cfg-options', help='change every config')
    parser.set_defaults(device='cpu')


def run(args: argparse.Namespace) -> list[dict]:
    """Run the benchmark and return the rows of the table."""
    from vop_mm.deployment.onnx_export import TextEncoder, VideoEncoder

    if min(args.captions) < 1:
        raise ValueError(f'--captions must be at least 1, got {min(args.captions)}')
    configs, rows = args.configs, []
    for number, config in enumerate(configs):
        args.configs = [config]  # one in memory at a time
        (method, model), = build_models(args).items()
        rows += compare(f'{method}, video', VideoEncoder(model.eval()), [args.batch_size], args.repeat)
        if number == 0:
            rows += compare(f'{method}, text', TextEncoder(model), args.captions, args.repeat)
    return rows


def compare(what: str, encoder, batch_sizes: list[int], repeat: int) -> list[dict]:
    """Return the rows of one tower: its file, the difference of its outputs, and its speed compared with the model."""
    import torch

    from vop_mm.deployment.onnx_export import largest_difference, open_session, write_onnx
    from vop_mm.utils.files import temporary_folder

    with temporary_folder(None, 'benchmark') as folder:
        path, start = folder / 'tower.onnx', time.perf_counter()
        write_onnx(encoder, path)
        took, size, difference = time.perf_counter() - start, path.stat().st_size, largest_difference(path, encoder)
        session = open_session(path, torch.get_num_threads())
    rows = [dict(what=f'{what}: exporting', figure=f'{took:.0f} s', value=took),
            dict(what=f'{what}: size of the file', figure=f'{size / 1e6:.0f} MB', value=size),
            dict(what=f'{what}: largest difference', figure=f'{difference:.1e}', value=difference,
                 target='at most 1e-04', met=difference <= 1e-4)]
    for batch_size in batch_sizes:
        inputs = encoder.random_inputs(batch_size)
        if 'tokens' in inputs:
            inputs = dict(tokens=captions(inputs['tokens']))
        arrays = {name: value.numpy() for name, value in inputs.items()}
        short = {name: value[:, :CAPTION] if getattr(encoder, 'any_length', False) else value
                 for name, value in inputs.items()}
        ways = {'PyTorch': lambda short=short: encoder.reference(**short),
                'onnxruntime': lambda arrays=arrays: session.run(None, arrays)}
        with torch.inference_mode():
            times = measure(ways, repeat, what, warm_up=2)
        rows += [dict(what=f'{what}, {batch_size} at a time: {name}', figure=f'{batch_size / min(times[name]):.2f} /s',
                      value=batch_size / min(times[name])) for name in ways]
        rows.append(beside(f'{what}, {batch_size} at a time: time of onnxruntime, by PyTorch\'s',
                           ratio(times['onnxruntime'], times['PyTorch']), at_most=1.))
    return rows


def captions(tokens):
    """Change tokens to captions of one length, int64 [B, L] -> [B, L]."""
    tokens = tokens.clone()
    end = tokens.max()
    tokens[tokens == end] = 1
    tokens[:, CAPTION - 1], tokens[:, CAPTION:] = end, 0
    return tokens
