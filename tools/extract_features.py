"""Encode a large collection of videos on many devices, as input of tools/index_videos.py --features.

    torchrun --nproc_per_node 8 tools/extract_features.py FOLDER OUT --config CONFIG --checkpoint FILE --device cuda
    srun ... python tools/extract_features.py ...

The collection is split into --shards parts, which the processes share. They never wait for each other: each may be
killed and restarted, in any number. If no file of the collection can be read, the last process to end exits with
status 3.
"""
import argparse
import contextlib
import os
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, printable, run_cli

_NOTHING_READ = 3  # exit status, as in tools/index_videos.py


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Encode a collection of videos, in parts that processes share.')
    parser.add_argument('folder', help='folder of the videos, an address or a manifest, as in tools/index_videos.py')
    parser.add_argument('out', help='folder of the features')
    parser.add_argument('--config', required=True, help='config file')
    parser.add_argument('--checkpoint', help='trained checkpoint; omit for zero-shot')
    parser.add_argument('--shards', type=int, default=64, help='number of parts, the same in every call (default: 64)')
    add_common_arguments(parser, '--window', '--stride', '--bf16', '--batch-size', '--timeout')
    add_common_arguments(parser, '--device', help='cuda: the GPU of each process (default: cpu)')
    parser.add_argument('--workers', type=int, default=2, help='decoding processes of each process (default: 2)')
    parser.add_argument('--max-windows', type=int, default=10_000, metavar='N', help='as in tools/index_videos.py')
    add_common_arguments(parser, '--backend-args', '--cfg-options')
    return parser.parse_args()


def rank_and_world_size() -> tuple[int, int, int]:
    """Return rank, number of processes and local rank, from the variables of torchrun or Slurm."""
    for names in (('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')):
        if all(name in os.environ for name in names):
            return tuple(int(os.environ[name]) for name in names)
    return 0, 1, 0


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file, require_videos
    require_file(args.config, 'config')
    require_file(args.checkpoint)
    require_videos(args.folder)
    rank, world_size, local_rank = rank_and_world_size()
    from vop_mm.apis import VideoSearcher
    from vop_mm.config import parse_options, read_config, require_checkpoint
    from vop_mm.datasets import VideoSource
    from vop_mm.datasets.video_files import describe_left_out

    backend_args = parse_options(args.backend_args or [], '--backend-args')
    VideoSource(args.folder, backend_args).require_folder()
    cfg = read_config(args.config, args.cfg_options)
    require_checkpoint(cfg, args.checkpoint, 'to encode with (--checkpoint)')
    device = f'cuda:{local_rank}' if args.device == 'cuda' else args.device
    searcher = VideoSearcher(cfg, args.checkpoint, device, args.bf16, args.batch_size, args.workers, args.timeout)
    reports = searcher.extract_features(args.folder, args.out, args.shards, rank, world_size, window=args.window,
                                        stride=args.stride, progress=rank == 0, max_windows=args.max_windows,
                                        backend_args=backend_args)
    clips, failed = sum(r.clips for r in reports), [file for r in reports for file in r.failed]
    print(f'process {rank} of {world_size}: {len(reports)} parts, {clips} clips, '
          f'{sum(r.encoded for r in reports)} encoded now; {len(failed)} files cannot be read')
    if rank == 0 and reports[0].left_out:
        print(describe_left_out(reports[0].left_out))
    if clips or not nothing_read(args.out, args.shards):
        return 0
    first = ''.join(f'; {path!r}: {printable(why)}' for path, why in failed[:1])
    print(f'no file of the collection can be read{first}')
    return _NOTHING_READ


def nothing_read(out: str, shards: int) -> bool:
    """Return True if all parts are finished, by any process, and contain no clips.

    A single process may have only broken files, and torchrun would end the others because of its exit status.
    """
    from vop_mm.search import SearchIndex
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(contextlib.closing(SearchIndex(folder))) for folder in Path(out).glob('part_*')]
        return len(parts) == shards and not any(part.catalogue.num_clips() or not part.is_finished() for part in parts)


if __name__ == '__main__':
    run_cli(main)
