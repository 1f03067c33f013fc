"""Common steps of all converters: read, count, hold out a dev split, find the videos, write all files or none."""
import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path

from vop_mm.utils.cli import printable
from vop_mm.utils.json_text import dump_json

from .dev_split import choose_caption, hold_out
from .source import ConversionError, Source
from .video_files import VideoFiles, without_extension

Captions = dict[str, list[str]]  # video id -> captions, in the annotation's order
_MAX_SHOWN = 5  # number of ids shown on the screen; files list all of them
_TOLERANCE = 0.02  # tolerance for counts that are only known roughly


def mp4_name(video_id: str) -> str:
    """Return the usual file name of a video: ``<id>.mp4``, or its id if that already has an extension."""
    return f'{video_id}.mp4' if without_extension(video_id) == video_id else video_id


@dataclass(frozen=True)
class Benchmark:
    """Description of a dataset and how to read its files.

    Args:
        name (str): Name for the metainfo, e.g. ``'msrvtt'``.
        protocol (str): Protocol of dev and test: ``'1:1'``, ``'paragraph'`` or ``'multi-caption'``.
        training_files (tuple[str, ...]): Files needed only for training. If none of them exists, only the test split is
            written.
        read_train (Callable): ``Source -> {split: {video id: captions}}``, the original training splits.
        read_test (Callable): ``Source -> {video id: captions}``.
        expected (dict): Split -> (videos, captions), the counts in publications.
        rough (tuple[str, ...]): Splits whose expected counts are not known exactly. Defaults to none.
        file_name (Callable): Video id -> assumed file name if no video folder is given. Defaults to :func:`mp4_name`.
        prefix (str): Prefix of ids that file names may lack. Defaults to none.
        times (dict): ``start`` and ``end`` of every video in seconds. Defaults to the whole video.
        dev_fraction (float): Default share of the training videos to hold out. Defaults to 0.05.
    """
    name: str
    protocol: str
    training_files: tuple[str, ...]
    read_train: Callable[[Source], dict[str, Captions]]
    read_test: Callable[[Source], Captions]
    expected: dict[str, tuple[int, int]]
    rough: tuple[str, ...] = ()
    file_name: Callable[[str], str] = mp4_name
    prefix: str = ''
    times: dict[str, float] = default(default_factory=dict)
    dev_fraction: float = 0.05


def convert(benchmark: Benchmark, description: str) -> int:
    """Run a converter with the arguments of the command line.

    Args:
        benchmark (Benchmark): Dataset to convert.
        description (str): Text for ``--help``.

    Returns:
        int: Exit status 0.

    Raises:
        ConversionError: The files are invalid. Nothing was written.
        OSError: A file can't be read or written.
    """
    args = _parse_args(benchmark, description)
    if args.out_dir.exists() and not args.out_dir.is_dir():
        raise NotADirectoryError(f'{args.out_dir} is not a folder')
    source = Source(args.src_dir)
    train, test = _read(benchmark, source)
    _print_counts(benchmark, {**train, 'test': test})
    splits = _hold_out(benchmark, train, args) | {'test': (benchmark.protocol, test)}
    found, lists = None, {}
    if args.video_dir is not None:
        found, lists = _find_videos(benchmark, splits, args.video_dir)
    contents = {f'{split}.json': _annotation(benchmark, split, *rest, found) for split, rest in splits.items()}
    for name in contents:
        if (args.out_dir / name).resolve() in source.files_read:
            raise ConversionError(f'{args.out_dir / name} is one of the files that are read: choose another OUT_DIR')
    texts = {name: f'{dump_json(content)}\n' for name, content in contents.items()}
    _write_all(args.out_dir, texts | lists)
    _print_result(contents, args)
    return 0


def _parse_args(benchmark: Benchmark, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src_dir', metavar='SRC_DIR', type=Path, help='folder with the files as distributed')
    parser.add_argument('out_dir', metavar='OUT_DIR', type=Path, help='folder for the annotations')
    parser.add_argument('--video-dir', metavar='DIR', type=Path, help='folder with the videos: their names are taken '
                        'from there, and videos that are not there are left out and listed in missing_videos.txt')
    parser.add_argument('--dev-fraction', type=float, default=benchmark.dev_fraction, metavar='X', help='share of the '
                        f'training videos held out for model selection (default: {benchmark.dev_fraction}); 0: none, '
                        'the training split is the one of the paper, whole')
    parser.add_argument('--seed', type=int, default=0, help='which videos are held out (default: 0)')
    args = parser.parse_args()
    if not 0 <= args.dev_fraction < 1:  # also excludes NaN
        parser.error(f'--dev-fraction must be between 0 and 1, got {args.dev_fraction}')
    if args.dev_fraction == 0 and (args.out_dir / 'dev.json').exists():
        parser.error(f'{args.out_dir / "dev.json"} holds videos that --dev-fraction 0 trains on: remove it, or name '
                     'another OUT_DIR')
    return args


def _read(benchmark: Benchmark, source: Source) -> tuple[dict[str, Captions], Captions]:
    test = _clean('test', benchmark.read_test(source))
    if any(source.find(name) for name in benchmark.training_files):
        train = {split: _clean(split, captions) for split, captions in benchmark.read_train(source).items()}
    else:
        train = {}
        _warn(f'no training files ({", ".join(benchmark.training_files)}) in {source.folder}: the test split is all '
              'that is written')
    for split, captions in train.items():
        both = captions.keys() & test.keys()
        if both:
            raise ConversionError(f'{len(both)} videos are both in {split} and in test: {_some(sorted(both))}')
    return train, test


def _clean(split: str, captions: Captions) -> Captions:
    """Normalize whitespace in captions, and remove blank captions."""
    cleaned, blank = {}, []
    for video_id, texts in captions.items():
        for text in texts:
            if not isinstance(text, str):
                raise ConversionError(f'{split}: a caption of {video_id} must be a text, found {text!r:.80}')
        cleaned[video_id] = [' '.join(text.split()) for text in texts if text.strip()]
        if not cleaned[video_id]:
            raise ConversionError(f'{split}: {video_id} has no captions')
        if len(cleaned[video_id]) < len(texts):
            blank.append(video_id)
    if not cleaned:
        raise ConversionError(f'{split}: no videos')
    if blank:
        _warn(f'{split}: captions that are blank are left out, of {_some(blank)}')
    return cleaned


def _print_counts(benchmark: Benchmark, splits: dict[str, Captions]) -> None:
    print(f'{benchmark.name:10}{"videos":>12}{"expected":>12}{"captions":>12}{"expected":>12}')
    differs = []
    for split, captions in splits.items():
        counts = len(captions), sum(map(len, captions.values()))
        about, tolerance = ('~', _TOLERANCE) if split in benchmark.rough else ('', 0)
        row = [f'{split:10}']
        for found, wanted in zip(counts, benchmark.expected[split], strict=True):
            row += [f'{found:12,}', f'{about + format(wanted, ","):>12}']
            if abs(found - wanted) > tolerance * wanted:
                differs.append(split)
        print(''.join(row))
    if differs:
        _warn(f'the counts of {", ".join(dict.fromkeys(differs))} differ from those of published results')


def _hold_out(benchmark: Benchmark, train: dict[str, Captions], args: argparse.Namespace) -> dict:
    """Return split -> (protocol, captions): training splits without dev videos, and the dev split, if there is one."""
    if not train:
        return {}
    smallest = min(train.values(), key=len)
    shared = [video_id for video_id in smallest if all(video_id in captions for captions in train.values())]
    dev = hold_out(shared, args.dev_fraction, args.seed)
    one_to_one = benchmark.protocol == '1:1'
    held_out = {video_id: [choose_caption(video_id, smallest[video_id], args.seed)] if one_to_one
                else smallest[video_id] for video_id in dev}
    protocol = '1:n' if one_to_one else benchmark.protocol
    splits = {split: (protocol, {k: v for k, v in captions.items() if k not in held_out})
              for split, captions in train.items()}
    return splits | (dict(dev=(benchmark.protocol, held_out)) if dev else {})


def _find_videos(benchmark: Benchmark, splits: dict, video_dir: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return file names by video id, and the content of the lists of missing and unannotated videos."""
    from vop_mm.datasets.video_files import describe_left_out
    print(f'looking for videos in {video_dir}')
    files = VideoFiles(video_dir, benchmark.prefix)
    wanted = list(dict.fromkeys(video_id for _, captions in splits.values() for video_id in captions))
    found = files.match(wanted)
    print(f'{len(files.paths):,} videos on disk, {len(found):,} of the {len(wanted):,} in the annotations')
    left_out = describe_left_out(files.left_out)
    if left_out:
        print(left_out)
    if not found:
        raise ConversionError(f'none of the {len(wanted):,} videos is in {video_dir}: looked for {_some(wanted)}, it '
                              f'holds {_some(files.paths) or "no videos"}')
    missing = [f'{split}\t{printable(video_id)}' for split, (_, captions) in splits.items() for video_id in captions
               if video_id not in found]
    for split, (_, captions) in splits.items():
        gone = [video_id for video_id in captions if video_id not in found]
        if len(gone) == len(captions):
            raise ConversionError(f'none of the {len(captions):,} videos of {split} is in {video_dir}: looked for '
                                  f'{_some(gone)}')
        if gone:
            _warn(f'{split}: {len(gone):,} of {len(captions):,} videos are not on disk and are LEFT OUT: {_some(gone)}')
    known = set(found.values())
    unannotated = [path for path in files.paths if path not in known]
    if unannotated:
        print(f'{len(unannotated):,} videos on disk are in no annotation: {_some(unannotated)}')
    return found, {'missing_videos.txt': ''.join(f'{line}\n' for line in missing),
                   'unannotated_videos.txt': ''.join(f'{printable(path)}\n' for path in unannotated)}


def _annotation(benchmark: Benchmark, split: str, protocol: str, captions: Captions,
                found: dict[str, str] | None) -> dict:
    metainfo = dict(dataset=benchmark.name, split=split, protocol=protocol)
    if found is not None:
        metainfo['missing_videos'] = sum(video_id not in found for video_id in captions)
    entries = [dict(video_id=video_id, video=benchmark.file_name(video_id) if found is None else found[video_id],
                    captions=texts, **benchmark.times)
               for video_id, texts in captions.items() if found is None or video_id in found]
    return dict(metainfo=metainfo, data_list=entries)


def _write_all(folder: Path, texts: dict[str, str]) -> None:
    """Write several files together: on an error, none of them is changed."""
    from vop_mm.utils.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for name, text in texts.items():
            file = stack.enter_context(atomic_write(folder / name, 'w'))
            file.write(text)
            # steps that can fail, e.g. on a full disk, happen here: leaving the stack only renames
            file.flush()
            os.fsync(file.fileno())


def _print_result(contents: dict[str, dict], args: argparse.Namespace) -> None:
    print(f'\nwrote to {args.out_dir}')
    for name, content in contents.items():
        captions = sum(len(entry['captions']) for entry in content['data_list'])
        print(f'  {name:16}{len(content["data_list"]):>10,} videos{captions:>10,} captions   protocol '
              f'{content["metainfo"]["protocol"]}')
    if args.video_dir is None:
        print('names of videos are guesses: with --video-dir they are those on disk')
    elif (args.out_dir / 'videos').resolve() != args.video_dir.resolve():
        print(f'configs look for the videos in {args.out_dir / "videos"}: make it a link to {args.video_dir}')


def _some(names: list[str]) -> str:
    return ', '.join(map(printable, names[:_MAX_SHOWN])) + (', ...' if len(names) > _MAX_SHOWN else '')


def _warn(message: str) -> None:
    sys.stdout.flush()
    print(f'warning: {message}', file=sys.stderr, flush=True)
