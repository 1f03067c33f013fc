"""Metrics of a large split: time and memory, from embeddings to recalls in both directions.

The default is 2,990 videos with 20 captions each, as in MSR-VTT's full test split. Memory is the peak of the process,
including Python, torch and the embeddings.
"""
import argparse
import time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument('--videos', type=int, default=2990, metavar='N', help='(default: 2990)')
    parser.add_argument('--captions', type=int, default=20, metavar='N', help='of each video (default: 20)')
    parser.add_argument('--dim', type=int, default=512, metavar='D', help='of the embeddings (default: 512)')
    parser.add_argument('--postprocess', nargs='+', default=[], choices=('dsl', 'sinkhorn'),
                        help='measure this as well')


def run(args: argparse.Namespace) -> list[dict]:
    """Run the benchmark and return the rows of the table."""
    import resource

    import numpy as np

    from vop_mm.evaluation.functional import evaluate_retrieval, similarity_matrix

    if min(args.videos, args.captions, args.dim) < 1:
        raise ValueError('--videos, --captions and --dim must be at least 1')
    rng = np.random.default_rng(0)
    videos = rng.standard_normal((args.videos, args.dim), dtype=np.float32)
    videos /= np.linalg.norm(videos, axis=1, keepdims=True)
    text_to_video = np.repeat(np.arange(args.videos), args.captions)
    texts = videos[text_to_video] + 0.2 * rng.standard_normal((len(text_to_video), args.dim), dtype=np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)

    start = time.perf_counter()
    similarity = similarity_matrix(texts, videos)
    ends = {}  # time at which each row was done
    for name, _ in evaluate_retrieval(similarity, text_to_video, postprocess=args.postprocess):
        ends[name] = time.perf_counter()
    plain = ends['v2t'] - start
    extra = {name: end - before for (name, end), before in zip(ends.items(), [start, *ends.values()], strict=False)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    what = f'{len(texts):,} captions x {len(videos):,} videos'
    return [
        dict(what=f'{what}: similarities and ranks', figure=f'{plain:.1f} s', value=plain, target='at most 30 s',
             met=plain <= 30),
        *(dict(what=name, figure=f'{extra[name]:.1f} s', value=extra[name])
          for name in list(ends)[2:]),
        dict(what='peak memory of the process', figure=f'{peak / 1e9:.2f} GB', value=peak, target='at most 2 GB',
             met=peak <= 2e9),
    ]
