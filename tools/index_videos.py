"""Index a folder of videos for search: python tools/index_videos.py FOLDER INDEX --config CONFIG --checkpoint FILE

An index that is there is brought up to date; it knows its config and checkpoint. Killed at any moment, the same command
goes on.
"""
import argparse
from pathlib import Path

_SHOWN = 20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Index a folder of videos, or bring its index up to date.')
    parser.add_argument('folder', help='folder of the videos; those below it count')
    parser.add_argument('index', help='folder of the index')
    parser.add_argument('--config', help='config file (default: that of the index)')
    parser.add_argument('--checkpoint', help='what training wrote; none for zero-shot')
    parser.add_argument('--features', metavar='DIR',
                        help='take the features in that tools/extract_features.py made of FOLDER: no model is run')
    parser.add_argument('--window', type=float, metavar='SECONDS',
                        help='longer videos are cut into windows of this length (default: 30)')
    parser.add_argument('--stride', type=float, metavar='SECONDS',
                        help="from one window's start to the next one's (default: half a window)")
    parser.add_argument('--backend', choices=('faiss', 'milvus'), help='where vectors are looked up (default: faiss)')
    parser.add_argument('--milvus-uri', metavar='URI',
                        help='http://host:19530 of a Milvus server; none for a Milvus Lite file in the index')
    parser.add_argument('--num-probes', type=int, metavar='N',
                        help='clusters that FAISS looks at for a query of a large index: more find more, in more time; '
                             'may be another each time (default: 256)')
    parser.add_argument('--device', default='cpu', help='default: cpu')
    parser.add_argument('--bf16', action='store_true', help='compute in bfloat16')
    parser.add_argument('--batch-size', type=int, default=32, help='clips that are encoded together (default: 32)')
    parser.add_argument('--workers', type=int, default=2, help='processes that decode (default: 2)')
    parser.add_argument('--timeout', type=float, default=60, metavar='SECONDS',
                        help='that decoding a batch of clips of a video may take (default: 60)')
    parser.add_argument('--json', metavar='FILE', help='write the report here as well')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config')
    args = parser.parse_args()
    if args.milvus_uri and args.backend == 'faiss':
        parser.error('--milvus-uri is of --backend milvus')
    if args.num_probes is not None and (args.backend == 'milvus' or args.milvus_uri):
        parser.error('--num-probes is of --backend faiss')
    return args


def main() -> int:
    args = parse_args()
    if not Path(args.folder).is_dir():
        raise NotADirectoryError(f'no such folder of videos: {args.folder}')
    from vop_mm.index import Gallery
    if args.features is None and args.config is None and not Gallery.exists(args.index):
        raise ValueError(f'{args.index} is no index yet: name a --config (and a --checkpoint) to make it with')

    backend = None
    if args.backend == 'milvus' or args.milvus_uri:
        backend = dict(type='MilvusIndex', **(dict(uri=args.milvus_uri) if args.milvus_uri else {}))
    elif args.backend == 'faiss' or args.num_probes is not None:
        backend = dict(type='FaissIndex', **({} if args.num_probes is None else dict(num_probes=args.num_probes)))
    if args.features is not None:
        from vop_mm.index import take_in_features
        report = take_in_features(args.features, args.index, backend)
    else:
        report = build(args, backend)
    if args.json:
        import dataclasses
        import json

        from vop_mm.utils.files import atomic_write
        with atomic_write(args.json, 'w') as file:
            json.dump(dataclasses.asdict(report), file, indent=1)
    print(f'{args.index}: {report.clips} clips; files: {report.added} added, {report.changed} changed, '
          f'{report.removed} removed, {report.unchanged} unchanged, {len(report.failed)} can not be read')
    for path, reason in report.failed[:_SHOWN]:
        print(f'  {path!r}: {reason}')
    if len(report.failed) > _SHOWN:
        print(f'  and {len(report.failed) - _SHOWN} more; --json FILE lists all')
    return 0


def build(args: argparse.Namespace, backend: dict | None):
    """Encode what is new; the report."""
    from vop_mm.apis import TextVideoRetriever
    from vop_mm.apis.config import parse_options, read_config, require_checkpoint

    options = dict(device=args.device, bf16=args.bf16, batch_size=args.batch_size, num_workers=args.workers,
                   timeout=args.timeout)
    if args.config is None:
        retriever = TextVideoRetriever.from_index(args.index, args.checkpoint, **options,
                                                  cfg_options=parse_options(args.cfg_options or []))
    else:
        cfg = read_config(args.config, args.cfg_options)
        require_checkpoint(cfg, args.checkpoint, 'to encode with (--checkpoint)')
        retriever = TextVideoRetriever(cfg, args.checkpoint, **options)
    return retriever.build_index(args.folder, args.index, window=args.window, stride=args.stride, backend=backend,
                                 progress=True)


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
