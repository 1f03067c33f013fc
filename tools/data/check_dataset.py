"""Check that all videos of a split can be used.

    python tools/data/check_dataset.py ANN_FILE --video-dir DIR
    python tools/data/check_dataset.py CONFIG --split train

Opens every clip as training would, in separate processes, so that a crash or hang does not end the check, and writes a
report. A second run continues where the first one stopped. Exit status: 0 if all clips are fit, 3 if some are not, 1 or
2 for errors in the arguments.
"""
import argparse
import csv
import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, printable, run_cli

_CLIP = ('video_id', 'video', 'start', 'end')
_MADE_WITH = ('num_frames', 'sampling', 'reader', 'bytes', 'changed')  # must be unchanged to reuse a row
_FOUND = ('problem', 'notes', 'detail', 'frames', 'fps', 'seconds', 'height', 'width')
_COLUMNS = _CLIP + _FOUND + _MADE_WITH


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Open all videos of a split and report those that are not fit.')
    parser.add_argument('source', metavar='ANN_FILE|CONFIG', help='annotation (.json), or config file (.py)')
    parser.add_argument('--video-dir', metavar='DIR', help='folder of the videos, an address (s3://bucket/videos) or a '
                                                           'manifest (.jsonl); needed with ANN_FILE')
    add_common_arguments(parser, '--backend-args',
                         help='with ANN_FILE: how to read videos elsewhere, as in tools/index_videos.py')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                        help='with CONFIG: which one (default: train)')
    parser.add_argument('--num-frames', type=int, metavar='N', default=12,
                        help='with ANN_FILE: frames of a clip (default: 12)')
    parser.add_argument('--reader', default='PyAVReader', help='with ANN_FILE: what reads videos (default: PyAVReader)')
    parser.add_argument('--report', metavar='FILE.csv', type=Path,
                        help='one row per clip (default: the annotation\'s name with .check.csv)')
    parser.add_argument('--quarantine', metavar='FILE.json', type=Path,
                        help='write the annotation without the clips that are not fit')
    parser.add_argument('--timeout', type=float, default=60., help='seconds that a video may take (default: 60)')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1,
                        help='videos at a time (default: one per core)')
    add_common_arguments(parser, '--cfg-options')
    args = parser.parse_args()
    if args.num_frames < 1 or args.workers < 1 or args.timeout <= 0:
        parser.error('--num-frames and --workers must be at least 1, --timeout more than 0')
    if args.source.endswith('.py') == (args.video_dir is not None):
        parser.error('give ANN_FILE with --video-dir, or CONFIG without')
    names, wanted = (('num_frames', 'reader', 'backend_args'), 'ANN_FILE') if args.video_dir is None else (
        ('split', 'cfg_options'), 'CONFIG')
    for name in names:
        if getattr(args, name) != parser.get_default(name):
            parser.error(f'--{name.replace("_", "-")} goes with {wanted}')
    return args


def main() -> int:
    args = parse_args()
    if not Path(args.source).is_file():
        raise FileNotFoundError(f'config not found: {args.source}' if args.source.endswith('.py') else
                                f'{args.source}: no such annotation file')
    from vop_mm.utils.paths import require_videos
    require_videos(args.video_dir or '')
    from rich.progress import track

    from vop_mm.config import parse_options
    from vop_mm.datasets.decoding import DecodeProcess
    from vop_mm.datasets.errors import VideoDecodeError
    from vop_mm.datasets.video_check import check_clip
    from vop_mm.registry import DATASETS, TRANSFORMS
    from vop_mm.utils import register_all_modules

    register_all_modules()
    dataset, read = _from_config(args) if args.source.endswith('.py') else (
        dict(type='VideoTextDataset', ann_file=args.source, data_prefix=dict(video=args.video_dir),
             backend_args=parse_options(args.backend_args or [], '--backend-args')),
        dict(type='ReadClip', num_frames=args.num_frames, reader=args.reader))
    # one item per clip, without training's treatment of unreadable files
    dataset = DATASETS.build(dict(dataset, pipeline=[], test_mode=True, on_unreadable=None, check_files=False))
    dataset.source.require_folder()
    items, ann_file = [dataset.get_data_info(i) for i in range(len(dataset))], dataset.ann_file or args.source
    if args.quarantine is not None and args.quarantine.resolve() == Path(ann_file).resolve():
        raise ValueError(f'--quarantine must not replace {ann_file} itself')
    report = args.report or Path(ann_file).with_suffix('.check.csv')
    read = TRANSFORMS.build(dict(read, store=None))
    made_with = {key: read.settings[key] for key in _MADE_WITH if key in read.settings}
    with ThreadPoolExecutor(args.workers) as pool:  # parallel, since a server may have to be queried
        rows = list(pool.map(lambda item: _empty_row(item, made_with), items))
    known = _read_report(report)
    for row in rows:
        row.update(known.get(_key(row), {}))
    lacking = [(item, row) for item, row in zip(items, rows) if _key(row) not in known]
    if len(lacking) < len(rows):
        print(f'{len(rows) - len(lacking)} of {len(rows)} clips were checked before: {report} (remove it to check all)')

    here, processes = threading.local(), []

    def check(item: dict) -> dict:
        if not hasattr(here, 'process'):
            here.process = DecodeProcess(lambda item: check_clip(read, item), args.timeout)
            processes.append(here.process)
        clip = {key: item[key] for key in ('start', 'end') if key in item}
        try:
            with dataset.source.local(item['video']) as path:
                return here.process.call(path, dict(clip, filename=path))
        except ImportError:  # concerns all files, not just this one
            raise
        except VideoDecodeError as e:  # the child process died or hung, or the file can't be downloaded
            missing = e.reason == 'no such file' or e.reason.startswith('HTTP 404')
            return dict(problem='missing' if missing else 'unreadable', notes=[], detail=e.reason)
        except Exception as e:  # unexpected errors become a row, too: the other files still have to be checked
            return dict(problem='unreadable', notes=[], detail=f'{type(e).__name__}: {" ".join(str(e).split())}')

    # rows are appended as they are found, so that a killed run can be continued; its last row may be incomplete
    _write_report(report, [row for row in rows if _key(row) in known])
    with report.open('a', newline='', encoding='utf-8') as file, ThreadPoolExecutor(args.workers) as pool:
        writer = csv.DictWriter(file, _COLUMNS)
        futures = {pool.submit(check, item): row for item, row in lacking}
        try:
            for future in track(as_completed(futures), 'checking', total=len(futures), disable=not futures):
                row = futures[future]
                found = future.result()
                row.update({key: found.get(key, '') for key in _FOUND}, notes=', '.join(found['notes']))
                writer.writerow(_printable(row))
                file.flush()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:  # their results are no longer needed
                process.close()
            raise
    _write_report(report, rows)
    fit = [item['video_index'] for item, row in zip(items, rows) if not row['problem']]
    _summarize(ann_file, rows, report)
    if args.quarantine is not None:
        metainfo, entries, _ = dataset.read_entries()
        _quarantine(args.quarantine, metainfo, [entries[index] for index in fit])
    return 0 if len(fit) == len(rows) else 3


def _from_config(args: argparse.Namespace) -> tuple[dict, dict]:
    """Return the dataset's config and the config of the transform that reads its clips."""
    from vop_mm.config import read_config
    from vop_mm.datasets.transforms import split_pipeline

    cfg = read_config(args.source, args.cfg_options)
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        raise ValueError(f'{args.source} has no {args.split} split')
    return loader.dataset, split_pipeline(loader.dataset.pipeline).read


def _empty_row(item: dict, made_with: dict) -> dict:
    from vop_mm.datasets.frame_store import source_of
    row = dict.fromkeys(_COLUMNS, '') | {key: item[key] for key in _CLIP if key in item}
    with suppress(OSError, ValueError):  # a ValueError if the name contains a NUL
        row.update(zip(('bytes', 'changed'), source_of(item['filename'], item.get('source'))))
    return row | made_with


def _key(row: dict) -> tuple[str, ...]:
    return tuple(str(value) for value in _printable({column: row[column] for column in _CLIP + _MADE_WITH}).values())


def _printable(row: dict) -> dict:
    """Escape names from JSON and of files that can't be encoded in UTF-8, so that the row can be written."""
    return {key: value.encode('utf-8', 'backslashreplace').decode() if isinstance(value, str) else value
            for key, value in row.items()}


def _read_report(path: Path) -> dict[tuple, dict]:
    """Read the rows of an earlier run, by clip and settings."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or _COLUMNS) != _COLUMNS:
                raise ValueError('other columns')
            rows = [row for row in reader if None not in row.values() and None not in row]
    except (ValueError, csv.Error):
        raise ValueError(f'{path} is not a report of this tool; choose another --report') from None
    return {_key(row): row for row in rows}


def _write_report(path: Path, rows: list[dict]) -> None:
    """Write exactly these rows, in the annotation's order."""
    from vop_mm.utils.files import atomic_write
    with atomic_write(path, 'w') as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(map(_printable, rows))


def _summarize(ann_file: str, rows: list[dict], report: Path) -> None:
    from vop_mm.datasets.video_check import NOTES, PROBLEMS
    bad = sum(bool(row['problem']) for row in rows)
    print(f'{ann_file}: {len(rows)} clips, {len(rows) - bad} fit, {bad} not')
    for kind, meaning in {**PROBLEMS, **NOTES}.items():
        found = [row['video'] for row in rows if kind in (row['problem'], *row['notes'].split(', '))]
        if found:
            named = ', '.join(found[:3]) + (', ...' if len(found) > 3 else '')
            print(f'  {len(found)} {kind}{" (fit)" if kind in NOTES else ""}: {meaning}: {printable(named)}')
    print(f'report: {report}')


def _quarantine(path: Path, metainfo: dict, fit: list[dict]) -> None:
    from vop_mm.utils.files import atomic_write
    from vop_mm.utils.json_text import dump_json
    if not fit:
        raise ValueError(f'no clip is usable: {path} would be empty, and is not written')
    with atomic_write(path, 'w') as file:
        file.write(dump_json(dict(metainfo=metainfo, data_list=fit)))
    print(f'wrote {len(fit)} clips to {path}')


if __name__ == '__main__':
    run_cli(main)
