"""Score a similarity matrix, of whatever model: python tools/analysis_tools/eval_similarity.py MATRIX.npy"""
import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Recalls and ranks of a similarity matrix, in both directions.')
    parser.add_argument('matrix', metavar='MATRIX.npy', help='[num_texts, num_videos], higher is more similar')
    parser.add_argument('--text-to-video', metavar='FILE.npy',
                        help='[num_texts] column of each text\'s video, from 0 (default: text i belongs to video i)')
    parser.add_argument('--ties', choices=('pessimistic', 'optimistic', 'mean'), default='pessimistic',
                        help='where equal scores rank (default: pessimistic, before the true one)')
    parser.add_argument('--v2t-protocol', choices=('video', 'caption'), default='video',
                        help='v2t with several captions per video: rank of the video\'s group of captions by their '
                        'maximum (video, default), or of its best caption among all captions (caption)')
    parser.add_argument('--json', metavar='FILE', type=Path, help='write the metrics here as well')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise FileNotFoundError(f'no such folder: {args.json.absolute().parent}')
    similarity = load_array(args.matrix)
    text_to_video = None if args.text_to_video is None else load_array(args.text_to_video)

    from vop_mm.evaluation.functional import retrieval_metrics
    metrics = retrieval_metrics(similarity, text_to_video, args.ties, args.v2t_protocol)
    num_texts, num_videos = similarity.shape
    print(f'{num_texts} texts, {num_videos} videos, ties {args.ties}'
          + (f', v2t by {args.v2t_protocol}' if num_texts != num_videos else ''))
    print(table(metrics))
    if args.json is not None:
        import json

        from vop_mm.utils.files import atomic_write
        with atomic_write(args.json, 'w') as file:
            json.dump(dict(metrics, num_texts=num_texts, num_videos=num_videos, ties=args.ties,
                           v2t_protocol=args.v2t_protocol), file, indent=1)
            file.write('\n')
    return 0


def load_array(path: str):
    """Open one array without reading it: a matrix may be larger than memory.

    Args:
        path (str): A ``.npy`` file. Pickled objects are refused.

    Returns:
        ndarray: Read from the file as it is used.

    Raises:
        OSError: It can't be read.
        ValueError: It is no such file.
    """
    import numpy as np
    if not Path(path).is_file():
        raise FileNotFoundError(f'no such file: {path}')
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except OSError:
        raise
    except Exception as e:  # a damaged header ends in anything from EOFError to SyntaxError
        raise ValueError(f'{path} is not a .npy file of numbers ({" ".join(str(e).split())})') from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f'{path} holds several arrays: save the one that is meant as .npy')
    return array


def table(metrics: dict[str, dict[str, float]]) -> str:
    """Metrics as lines of text.

    Args:
        metrics (dict): Of :func:`vop_mm.evaluation.functional.retrieval_metrics`.

    Returns:
        str: One row per direction.
    """
    names = list(next(iter(metrics.values())))
    head = [name.replace('R', 'R@', 1) if name[1:].isdigit() else name for name in names]
    lines = [' ' * 4 + ''.join(f'{name:>8}' for name in head)]
    lines += [f'{direction:4}' + ''.join(f'{values[name]:8.1f}' for name in names)
              for direction, values in metrics.items()]
    return '\n'.join(lines)


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
