"""Score similarities or embeddings of any model.

    python tools/analysis_tools/eval_similarity.py MATRIX.npy                [num_texts, num_videos]
    python tools/analysis_tools/eval_similarity.py TEXTS.npy VIDEOS.npy      [num_texts, D] and [num_videos, D]
    python tools/analysis_tools/eval_similarity.py FEATURES.npz              written by tools/test.py --dump

Prints recalls and ranks in both directions, like tools/test.py.
"""
import argparse
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli

META = ('dataset', 'split', 'protocol')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='+', metavar='FILE', help='a matrix, two files of embeddings, or one of both')
    parser.add_argument('--text-to-video', metavar='FILE.npy',
                        help='[num_texts] column of each text\'s video, from 0 (default: text i belongs to video i)')
    parser.add_argument('--ties', choices=('pessimistic', 'optimistic', 'mean'), default='pessimistic',
                        help='where equal scores rank (default: pessimistic, before the true one)')
    parser.add_argument('--v2t-protocol', choices=('video', 'caption'), default='video',
                        help='v2t with several captions per video: rank of the video\'s group of captions by their '
                        'maximum (video, default), or of its best caption among all captions (caption)')
    parser.add_argument('--postprocess', nargs='+', action='extend', default=[], choices=('dsl', 'sinkhorn', 'qbnorm'),
                        help='rows with post-processed similarities, which have to be cosines')
    parser.add_argument('--query-bank', metavar='FILE.npz', help='for qbnorm, beside embeddings: those of the training '
                        'split, text_features and video_features, as tools/test.py --dump writes them')
    add_common_arguments(parser, '--bootstrap')
    parser.add_argument('--json', metavar='FILE', type=Path, help='write the metrics here as well')
    args = parser.parse_args()
    if len(args.files) > 2:
        parser.error('name one matrix, or two files of embeddings')
    return args


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file, require_folder
    for path in [*args.files, args.text_to_video]:
        require_file(path, '')
    require_file(args.query_bank, 'query bank')
    require_folder(args.json)
    if args.bootstrap < 0:
        raise ValueError(f'--bootstrap must be at least 0, got {args.bootstrap}')

    from vop_mm.evaluation.functional import (
        check_postprocess,
        evaluate_retrieval,
        load_query_bank,
        similarity_matrix,
    )

    check_postprocess(args.postprocess, args.query_bank is not None)
    bank = text_to_video = None
    meta = dict.fromkeys(META)
    if len(args.files) == 2 or args.files[0].endswith('.npz'):
        if len(args.files) == 2:
            texts, videos = map(load_array, args.files)
        else:
            texts, videos, text_to_video, meta = load_dump(args.files[0])
        similarity = similarity_matrix(texts, videos)
        if args.query_bank is not None:
            bank = load_query_bank(args.query_bank, texts, videos)
    elif args.query_bank is not None:
        raise ValueError('a query bank is compared with embeddings: name two files of them in place of a matrix')
    else:
        similarity = load_array(args.files[0])
    if args.text_to_video is not None:
        text_to_video = load_array(args.text_to_video)

    metrics = dict(evaluate_retrieval(similarity, text_to_video, args.ties, args.v2t_protocol, args.postprocess, bank,
                                      args.bootstrap))
    num_texts, num_videos = similarity.shape
    known = ''.join(f'{meta[key]}, ' for key in META if meta[key])
    print(f'{", ".join(args.files)}: {known}{num_texts} texts, gallery of {num_videos} videos, ties {args.ties}'
          + (f', v2t by {args.v2t_protocol}' if num_texts != num_videos else ''))
    print(table(metrics))
    if args.json is not None:
        import json

        from vop_mm.utils.files import atomic_write
        with atomic_write(args.json, 'w') as file:
            json.dump(dict(metrics, files=args.files, **meta, num_texts=num_texts, num_videos=num_videos,
                           ties=args.ties, v2t_protocol=args.v2t_protocol, query_bank=args.query_bank,
                           bootstrap=args.bootstrap), file, indent=1)
            file.write('\n')
    return 0


def load_array(path: str):
    """Open an array without reading it, since a matrix may be larger than memory.

    Args:
        path (str): ``.npy`` file. Pickled objects are rejected.

    Returns:
        ndarray: Memory-mapped array.

    Raises:
        OSError: The file can't be read.
        ValueError: The file is not an ``.npy`` file of a single array.
    """
    import numpy as np
    if not Path(path).is_file():
        raise FileNotFoundError(f'no such file: {path}')
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except OSError:
        raise
    except Exception as e:  # a damaged header raises anything from EOFError to SyntaxError
        raise ValueError(f'{path} is not a .npy file of numbers ({" ".join(str(e).split())})') from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f'{path} holds several arrays: save the right one as .npy')
    return array


def load_dump(path: str):
    """Read the embeddings of a dump.

    Args:
        path (str): ``.npz`` file written by the metric.

    Returns:
        tuple[ndarray, ndarray, ndarray, dict]: ``text_features`` [T, D], ``video_features`` [V, D], ``text_to_video``
        [T], and ``dataset, split, protocol``, each a string or None.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a dump.
    """
    from vop_mm.evaluation.dump import read_dump
    names = ('text_features', 'video_features', 'text_to_video')
    arrays = read_dump(path, *names)
    meta = {key: str(arrays[key]) if key in arrays else None for key in META}
    return *(arrays[name] for name in names), meta


def table(metrics: dict[str, dict[str, float]]) -> str:
    """Format metrics as lines of text.

    Args:
        metrics (dict): Metrics of :func:`vop_mm.evaluation.functional.evaluate_retrieval`.

    Returns:
        str: One row per direction and post-processing, each followed by a row with intervals if there are any.
    """
    names = [name for name in next(iter(metrics.values())) if not name.endswith(('_low', '_high'))]
    first = max(map(len, metrics))
    width = 16 if any(f'{names[0]}_low' in values for values in metrics.values()) else 8
    head = [name.replace('R', 'R@', 1) if name[1:].isdigit() else name for name in names]
    lines = [' ' * first + ''.join(f'{name:>{width}}' for name in head)]
    for row, values in metrics.items():
        lines.append(f'{row:{first}}' + ''.join(f'{values[name]:{width}.1f}' for name in names))
        if f'{names[0]}_low' in values:
            ends = [f'[{values[f"{name}_low"]:.1f}, {values[f"{name}_high"]:.1f}]' for name in names]
            lines.append(' ' * first + ''.join(f'{text:>{width}}' for text in ends))
    return '\n'.join(lines)


if __name__ == '__main__':
    run_cli(main)
