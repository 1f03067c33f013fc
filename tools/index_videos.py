"""Index a folder of videos for search.

    python tools/index_videos.py FOLDER INDEX --config CONFIG --checkpoint FILE

An existing index is updated; it stores its config and checkpoint. If the command is killed, running it again
continues. The exit status is 3 if no file can be read.
"""
import argparse

from vop_mm.utils.cli import add_common_arguments, run_cli

_MAX_LISTED = 20
_NOTHING_READ = 3  # exit status, as in tools/data/check_dataset.py


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Index a folder of videos, or update its index.')
    parser.add_argument('folder', help='folder of the videos, including subfolders and links; or an address '
                                       '(s3://bucket/videos) or a manifest (.jsonl)')
    parser.add_argument('index', help='folder of the index')
    parser.add_argument('--config', help='config file (default: the config of the index)')
    parser.add_argument('--checkpoint', help='trained checkpoint; omit for zero-shot')
    parser.add_argument('--features', metavar='DIR',
                        help='use features of FOLDER from tools/extract_features.py, without running a model')
    add_common_arguments(parser, '--window', '--stride')
    parser.add_argument('--backend', choices=('faiss', 'milvus'), help='vector index (default: faiss)')
    parser.add_argument('--milvus-uri', metavar='URI',
                        help='address of a Milvus server, http://host:19530 (default: a Milvus Lite file in the index)')
    parser.add_argument('--num-probes', type=int, metavar='N',
                        help='number of clusters that FAISS searches in a large index: more find more, but take '
                             'longer; can be changed later (default: 256)')
    add_common_arguments(parser, '--device', '--bf16', '--batch-size', '--timeout')
    parser.add_argument('--workers', type=int, default=2, help='decoding processes (default: 2)')
    parser.add_argument('--max-windows', type=int, metavar='N',
                        help='maximum number of windows per file; files with more are not read (default: 10000)')
    parser.add_argument('--json', metavar='FILE', help='also write the report to a file')
    add_common_arguments(parser, '--backend-args', '--cfg-options', '--import')
    args = parser.parse_args()
    if args.milvus_uri and args.backend == 'faiss':
        parser.error('--milvus-uri requires --backend milvus')
    if args.num_probes is not None and (args.backend == 'milvus' or args.milvus_uri):
        parser.error('--num-probes requires --backend faiss')
    if args.max_windows is not None and args.max_windows < 1:
        parser.error('--max-windows must be at least 1')
    if args.features is not None:
        for name in ('config', 'checkpoint', 'window', 'stride', 'device', 'bf16', 'batch_size', 'workers', 'timeout',
                     'max_windows', 'backend_args', 'cfg_options'):
            if getattr(args, name) != parser.get_default(name):
                parser.error(f'--{name.replace("_", "-")} cannot be used with --features')
    return args


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file, require_folder, require_videos
    require_file(args.config, 'config')
    require_file(args.checkpoint)
    require_videos(args.folder)
    require_folder(args.json)  # before hours of work, not after them
    from vop_mm.config import parse_options
    from vop_mm.datasets import VideoSource
    args.backend_args = parse_options(args.backend_args or [], '--backend-args')
    VideoSource(args.folder, args.backend_args).require_folder()
    from vop_mm.datasets.video_files import describe_left_out
    from vop_mm.search import SearchIndex
    if args.features is None and args.config is None and not SearchIndex.exists(args.index):
        raise ValueError(f'{args.index} is not an index: use --config (and --checkpoint) to create it')

    backend = None
    if args.backend == 'milvus' or args.milvus_uri:
        backend = dict(type='MilvusIndex', **(dict(uri=args.milvus_uri) if args.milvus_uri else {}))
    elif args.backend == 'faiss' or args.num_probes is not None:
        backend = dict(type='FaissIndex', **({} if args.num_probes is None else dict(num_probes=args.num_probes)))
    if args.features is not None:
        from vop_mm.search import merge_features
        report = merge_features(args.features, args.index, backend, args.folder)
    else:
        report = build(args, backend)
    if args.json:
        import dataclasses
        import json

        from vop_mm.utils.files import atomic_write
        with atomic_write(args.json, 'w') as file:
            json.dump(dataclasses.asdict(report), file, indent=1)
    partly = f', {len(report.partly)} in part' if report.partly else ''
    print(f'{args.index}: {report.clips} clips; files: {report.added} added, {report.changed} changed, '
          f'{report.removed} removed, {report.unchanged} unchanged, {len(report.failed)} cannot be read{partly}')
    listed = [*report.failed, *report.partly]
    for path, reason in listed[:_MAX_LISTED]:
        print(f'  {path!r}: {reason if reason.isprintable() else repr(reason)}')
    if len(listed) > _MAX_LISTED:
        print(f'  and {len(listed) - _MAX_LISTED} more; use --json FILE to list all')
    if report.left_out:
        print(describe_left_out(report.left_out))
    return _NOTHING_READ if report.failed and not report.clips else 0


def build(args: argparse.Namespace, backend: dict | None):
    """Encode new files and return the report."""
    from vop_mm.apis import VideoSearcher
    from vop_mm.config import import_custom_modules, parse_options, read_config, require_checkpoint
    from vop_mm.search.windows import MAX_WINDOWS

    options = dict(device=args.device, bf16=args.bf16, batch_size=args.batch_size, num_workers=args.workers,
                   timeout=args.timeout)
    import_custom_modules(args.modules)
    if args.config is None:
        searcher = VideoSearcher.from_index(args.index, args.checkpoint, **options,
                                            cfg_options=parse_options(args.cfg_options or []))
    else:
        cfg = read_config(args.config, args.cfg_options)
        require_checkpoint(cfg, args.checkpoint, 'to encode with (--checkpoint)')
        searcher = VideoSearcher(cfg, args.checkpoint, **options)
    return searcher.build_index(args.folder, args.index, backend=backend, window=args.window, stride=args.stride,
                                progress=True, max_windows=args.max_windows or MAX_WINDOWS,
                                backend_args=args.backend_args)


if __name__ == '__main__':
    run_cli(main)
