"""Decode each video once and store its frames.

    python tools/data/cache_frames.py CONFIG --out DIR

The frames of every clip that the config's pipeline samples are stored in DIR/train, DIR/val and DIR/test. Training and
evaluation read them from there with --cfg-options frames_from=DIR. A second run continues where the first one stopped,
adds new and changed clips, and replaces damaged ones.
"""
import argparse
import os
from contextlib import closing
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, printable, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Decode the frames that a config samples, and store them.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', required=True, metavar='DIR', type=Path, help='where the stores go, one per split')
    parser.add_argument('--split', nargs='+', choices=('train', 'val', 'test'), default=('train', 'val', 'test'),
                        help='which ones (default: all)')
    parser.add_argument('--frames-per-segment', type=int, metavar='K', default=4,
                        help='where a pipeline samples a random frame of each segment: how many there are to draw from '
                        '(default: 4)')
    parser.add_argument('--short-side', type=int, metavar='N', default=256,
                        help='where a pipeline crops at random: larger frames are scaled down to this (default: 256; '
                        '0: never)')
    parser.add_argument('--quality', type=int, metavar='Q', help='store JPEG of this quality, up to 100 (default: '
                        'frames as they are, exact, and five to seven times as large)')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1,
                        help='processes that decode (default: one per core)')
    parser.add_argument('--retry-unreadable', action='store_true',
                        help='try again what could not be decoded in an earlier run')
    add_common_arguments(parser, '--cfg-options')
    args = parser.parse_args()
    if args.frames_per_segment < 2 or args.short_side < 0 or args.workers < 1:
        parser.error('--frames-per-segment must be at least 2, --workers at least 1, --short-side not negative')
    if args.quality is not None and not 1 <= args.quality <= 100:
        parser.error('--quality must be 1 to 100')
    return args


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file
    require_file(args.config, 'config')
    from vop_mm.config import read_config
    from vop_mm.utils import register_all_modules

    cfg = read_config(args.config, args.cfg_options)
    register_all_modules()
    for split in args.split:
        if cfg.get(f'{split}_dataloader'):
            _cache_split(cfg[f'{split}_dataloader'].dataset, split, args)
    print(f'to use them: --cfg-options frames_from={args.out}')
    return 0


def _cache_split(dataset, split: str, args: argparse.Namespace) -> None:
    from vop_mm.datasets import DamagedStoreError
    from vop_mm.datasets.clip_storing import ClipStoring
    from vop_mm.registry import DATASETS
    from vop_mm.utils.locks import locked

    decode = ClipStoring(dataset.pipeline, args.frames_per_segment, args.short_side, args.quality)
    clips = _distinct_clips(DATASETS.build({**dataset, 'pipeline': []}))
    path = args.out / split
    path.parent.mkdir(parents=True, exist_ok=True)
    # LMDB separates concurrent writers, but not removal of a damaged file from writing to it
    with locked(args.out / f'{split}.lock', f'another process is storing frames in {path}'):
        try:
            _fill(path, clips, decode, args)
        except DamagedStoreError as e:
            print(f'{str(e).partition(";")[0]}; all of it is rebuilt')
            _fill(path, clips, decode, args, anew=True)


def _fill(path: Path, clips: list[dict], decode, args: argparse.Namespace, anew: bool = False) -> None:
    from vop_mm.datasets import FrameStoreWriter
    with closing(FrameStoreWriter(path, decode.settings, anew)) as store:
        lacking = _add_lacking(store, clips, decode, args)
        infos = [store.info(*_place(clip)) for clip in clips]
    unreadable = {info['video']: info['unreadable'] for info in infos if 'unreadable' in info}
    print(f'{path}: {len(clips)} clips, {lacking} of them new, {(path / "data.mdb").stat().st_size / 1e6:.1f} MB')
    if unreadable:
        print(f'{len(unreadable)} videos can\'t be decoded:')
        for video, reason in unreadable.items():
            print(printable(f'  {video}: {reason}'))


def _add_lacking(store, clips: list[dict], decode, args: argparse.Namespace) -> int:
    """Decode the clips that are missing, damaged or outdated in a store, and return their number."""
    from rich.progress import track
    from torch.utils.data import DataLoader

    # changed files are detected immediately; changed frames only by reading them
    lacking, old, name = [], [], store.path.name
    for clip in clips:
        (lacking if _is_lacking(store, clip, args.retry_unreadable) else old).append(clip)
    for clip in track(old, f'looking through {name}', disable=not old):
        damage = store.damage(store.info(*_place(clip)))
        if damage:
            print(f'{damage.partition(";")[0]}; they are rebuilt')
            lacking.append(clip)
    if lacking:
        store.set_finished(False)
        # in the given order, with only a few per worker in memory
        jobs = DataLoader(_Jobs(lacking, decode), batch_size=None, num_workers=min(args.workers, len(lacking)),
                          collate_fn=_as_it_is)
        for clip, made in track(zip(lacking, jobs), f'caching {name}', total=len(lacking)):
            store.add(*_place(clip), *made)
        store.set_finished(True)
    return len(lacking)


def _distinct_clips(dataset) -> list[dict]:
    """Return the items of a dataset, one per clip: several captions share a clip."""
    items = (dataset.get_data_info(index) for index in range(len(dataset)))
    return list({_place(item): item for item in items}.values())


def _place(clip: dict) -> tuple:
    return clip['video'], clip.get('start'), clip.get('end')


def _is_lacking(store, clip: dict, retry_unreadable: bool) -> bool:
    from vop_mm.datasets import DamagedStoreError
    from vop_mm.datasets.frame_store import source_of
    try:
        info = store.info(*_place(clip))
        source = source_of(clip['filename'], clip.get('source'))
    except DamagedStoreError as e:
        print(f'{str(e).partition(";")[0]}; it is rebuilt')
        return True
    except (OSError, ValueError):
        return True  # the file is gone; decoding will report it
    return info is None or info['source'] != source or (retry_unreadable and 'unreadable' in info)


class _Jobs:
    """Clips for the workers of a DataLoader to decode."""

    def __init__(self, clips: list[dict], decode) -> None:
        self.clips, self.decode = clips, decode

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[dict, bytes]:
        return self.decode(self.clips[index])


def _as_it_is(item):
    return item


if __name__ == '__main__':
    run_cli(main)
