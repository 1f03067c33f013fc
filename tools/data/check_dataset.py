"""Is a split fit? python tools/data/check_dataset.py ANN_FILE --video-dir DIR    or    CONFIG --split train

Opens every clip as training would, in processes that may crash or hang without taking the check along, and writes a
report. A second run goes on where the first one stopped. Exit status: 0 fit, 3 not fit, 1 or 2 an error in what was
asked for.
"""
import argparse
import csv
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

_CLIP = ('video_id', 'video', 'start', 'end')
_MADE_WITH = ('num_frames', 'decoder', 'bytes', 'changed')  # under which a row of an earlier run still holds
_FOUND = ('problem', 'notes', 'detail', 'frames', 'fps', 'seconds', 'height', 'width')
_COLUMNS = _CLIP + _FOUND + _MADE_WITH


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Open all videos of a split and report those that are not fit.')
    parser.add_argument('source', metavar='ANN_FILE|CONFIG', help='annotation (.json), or config file (.py)')
    parser.add_argument('--video-dir', metavar='DIR', help='folder of the videos; needed with ANN_FILE')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                        help='with CONFIG: which one (default: train)')
    parser.add_argument('--num-frames', type=int, metavar='N', default=12,
                        help='with ANN_FILE: frames of a clip (default: 12)')
    parser.add_argument('--decoder', choices=('OpenVideo', 'OpenVideoTorchCodec'), default='OpenVideo',
                        help='with ANN_FILE: the transform that opens videos (default: OpenVideo, which is decord)')
    parser.add_argument('--report', metavar='FILE.csv', type=Path,
                        help='one row per clip (default: the annotation\'s name with .check.csv)')
    parser.add_argument('--quarantine', metavar='FILE.json', type=Path,
                        help='write the annotation without the clips that are not fit')
    parser.add_argument('--timeout', type=float, default=60., help='seconds that a video may take (default: 60)')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1,
                        help='videos at a time (default: one per core)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config')
    args = parser.parse_args()
    if args.num_frames < 1 or args.workers < 1 or args.timeout <= 0:
        parser.error('--num-frames and --workers must be at least 1, --timeout more than 0')
    if args.source.endswith('.py') == (args.video_dir is not None):
        parser.error('give ANN_FILE with --video-dir, or CONFIG without')
    return args


def main() -> int:
    args = parse_args()
    from rich.progress import track

    from vop_mm.datasets import read_annotation
    from vop_mm.datasets.decoding import DecodeProcess
    from vop_mm.datasets.video_check import check_clip
    from vop_mm.registry import TRANSFORMS

    ann_file, video_dir, opening, num_frames = _from_config(args) if args.source.endswith('.py') else (
        args.source, args.video_dir, dict(type=args.decoder), args.num_frames)
    metainfo, entries = read_annotation(ann_file)
    if not Path(video_dir).is_dir():
        raise FileNotFoundError(f'no such folder: {video_dir}')
    if args.quarantine is not None and args.quarantine.resolve() == Path(ann_file).resolve():
        raise ValueError(f'--quarantine must not replace {ann_file} itself')
    report = args.report or Path(ann_file).with_suffix('.check.csv')
    open_video = TRANSFORMS.build(opening)
    rows = [_empty_row(entry, Path(video_dir), num_frames, type(open_video).__name__) for entry in entries]
    known = _read_report(report)
    for row in rows:
        row.update(known.get(_key(row), {}))
    lacking = [(entry, row) for entry, row in zip(entries, rows) if _key(row) not in known]
    if len(lacking) < len(rows):
        print(f'{len(rows) - len(lacking)} of {len(rows)} clips were checked before: {report} (remove it to check all)')

    here = threading.local()

    def check(entry: dict) -> dict:
        from vop_mm.datasets import VideoDecodeError
        if not hasattr(here, 'process'):
            here.process = DecodeProcess(lambda item: check_clip(open_video, item, num_frames), args.timeout)
        item = {key: entry[key] for key in ('start', 'end') if entry.get(key) is not None}
        item['filename'] = str(Path(video_dir) / entry['video'])
        try:
            return here.process.call(item['filename'], item)
        except VideoDecodeError as e:  # the child died, or hung
            return dict(problem='unreadable', notes=[], detail=e.reason)

    # rows are added as they come, for the run after one that was killed; its last one may have been cut off
    _write_report(report, [row for row in rows if _key(row) in known])
    with report.open('a', newline='', encoding='utf-8') as file, ThreadPoolExecutor(args.workers) as pool:
        writer = csv.DictWriter(file, _COLUMNS)
        futures = {pool.submit(check, entry): row for entry, row in lacking}
        try:
            for future in track(as_completed(futures), 'checking', total=len(futures), disable=not futures):
                row = futures[future]
                found = future.result()
                row.update({key: found.get(key, '') for key in _FOUND}, notes=', '.join(found['notes']))
                writer.writerow(row)
                file.flush()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _write_report(report, rows)
    fit = [entry for entry, row in zip(entries, rows) if not row['problem']]
    _summarise(ann_file, rows, report)
    if args.quarantine is not None:
        _quarantine(args.quarantine, metainfo, fit)
    return 0 if len(fit) == len(rows) else 3


def _from_config(args: argparse.Namespace) -> tuple[str, str, dict, int]:
    """Annotation, folder of the videos, what opens them, frames of a clip."""
    from vop_mm.apis.config import read_config
    from vop_mm.datasets.transforms import split_pipeline
    from vop_mm.registry import TRANSFORMS
    from vop_mm.utils import register_all_modules

    cfg = read_config(args.source, args.cfg_options)
    register_all_modules()
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        raise ValueError(f'{args.source} has no {args.split} split')
    dataset, root = loader.dataset, loader.dataset.get('data_root', '')
    front, _ = split_pipeline(dataset.pipeline)
    sample = next(step for step in front if step['type'].endswith('SampleSegments'))
    return (os.path.join(root, dataset.ann_file), os.path.join(root, dataset.data_prefix.get('video', '')), front[0],
            TRANSFORMS.build(sample).num_frames)


def _empty_row(entry: dict, video_dir: Path, num_frames: int, decoder: str) -> dict:
    row = dict.fromkeys(_COLUMNS, '') | {key: entry[key] for key in _CLIP if entry.get(key) is not None}
    with suppress(OSError):
        stat = (video_dir / entry['video']).stat()
        row.update(bytes=stat.st_size, changed=int(stat.st_mtime))
    return row | dict(num_frames=num_frames, decoder=decoder)


def _key(row: dict) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in _CLIP + _MADE_WITH)


def _read_report(path: Path) -> dict[tuple, dict]:
    """Rows of an earlier run, by clip and by what they were made with."""
    if not path.is_file():
        return {}
    with path.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or _COLUMNS) != _COLUMNS:
            raise ValueError(f'{path} is not a report of this tool; name another --report')
        rows = [row for row in reader if None not in row.values() and None not in row]
    return {_key(row): row for row in rows}


def _write_report(path: Path, rows: list[dict]) -> None:
    """The rows in the annotation's order, and no others."""
    from vop_mm.utils.files import atomic_write
    with atomic_write(path, 'w') as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _summarise(ann_file: str, rows: list[dict], report: Path) -> None:
    from vop_mm.datasets.video_check import NOTES, PROBLEMS
    bad = sum(bool(row['problem']) for row in rows)
    print(f'{ann_file}: {len(rows)} clips, {len(rows) - bad} fit, {bad} not')
    for kind, meaning in {**PROBLEMS, **NOTES}.items():
        found = [row['video'] for row in rows if kind in (row['problem'], *row['notes'].split(', '))]
        if found:
            named = ', '.join(found[:3]) + (', ...' if len(found) > 3 else '')
            print(f'  {len(found)} {kind}{" (fit)" if kind in NOTES else ""}: {meaning}: {named}')
    print(f'report: {report}')


def _quarantine(path: Path, metainfo: dict, fit: list[dict]) -> None:
    from vop_mm.utils.files import atomic_write
    if not fit:
        raise ValueError(f'no clip is fit: {path} would be empty, and is not written')
    with atomic_write(path, 'w') as file:
        json.dump(dict(metainfo=metainfo, data_list=fit), file, indent=1, ensure_ascii=False)
    print(f'wrote {len(fit)} clips to {path}')


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
