"""Render the demo dataset.

    python tools/data/make_demo.py OUT_DIR

Short h264 clips of colored shapes with captions. Most kinds of clips can be distinguished only by the order of frames:
a shape that moves left and its reverse, which moves right. OUT_DIR gets train.json, dev.json, test.json and videos/.
The same settings give the same files; if they exist already, nothing is done.
"""
import argparse
import os
from pathlib import Path

from vop_mm.utils.cli import run_cli

FRAMES, SIZE, FPS = 36, 64, 12  # 36: the middles of 12 equal segments are the same frames in a clip and its reverse
LIGHT = 0.006  # variation of brightness between clips, as a fraction
SPLITS = ('train', 'dev', 'test')
SETTINGS = 'settings.json'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Render and encode the demo clips and write their annotations.')
    parser.add_argument('out_dir', metavar='OUT_DIR', type=Path, help='folder to make; whole or not there')
    parser.add_argument('--seed', type=int, default=1, help='other seeds give other clips (default: 1)')
    parser.add_argument('--num-train', type=int, default=480, help='training clips, two captions each (default: 480)')
    parser.add_argument('--num-dev', type=int, default=100, help='clips for model selection (default: 100)')
    parser.add_argument('--num-test', type=int, default=300, help='test clips (default: 300)')
    parser.add_argument('--workers', type=int, default=min(2, os.cpu_count() or 1),
                        help='processes that encode (default: 2, on one core 1)')
    args = parser.parse_args()
    if min(args.num_train, args.num_dev, args.num_test, args.workers) < 1 or args.seed < 0:
        parser.error('numbers of clips and workers must be at least 1, the seed at least 0')
    return args


def main() -> int:
    args = parse_args()
    import json

    from vop_mm.utils.files import remove_leftovers, temporary_folder

    out = args.out_dir.resolve()  # resolves a link to the folder that will be replaced
    counts = dict(zip(SPLITS, (args.num_train, args.num_dev, args.num_test)))
    settings = dict(seed=args.seed, counts=counts, frames=FRAMES, size=SIZE, fps=FPS, code=_code_fingerprint())
    remove_leftovers(out.parent)
    if _is_whole(out, settings):
        print(f'{args.out_dir} is there already, with these settings: nothing to do')
        return 0
    if out.exists() and not (out / SETTINGS).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f'{args.out_dir} holds something else than the demo; name another folder')
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_dir() and not os.access(out, os.W_OK):
        raise PermissionError(f'{args.out_dir} is not writable')
    # everything is written to a temporary folder next to OUT_DIR and renamed at the end
    with temporary_folder(out.parent, out.name) as beside:
        new = beside / 'new'
        (new / 'videos').mkdir(parents=True)
        annotations, jobs = _plan(args.seed, counts)
        _encode_all(jobs, new / 'videos', args.workers)
        for split, content in annotations.items():
            (new / f'{split}.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        (new / SETTINGS).write_text(json.dumps(settings, indent=1) + '\n', encoding='utf-8')
        _swap_in(new, out)
    print(f'wrote {sum(counts.values())} clips to {args.out_dir}: '
          + ', '.join(f'{count} {split}' for split, count in counts.items()))
    return 0


def _code_fingerprint() -> str:
    """Return a hash of the code that makes the clips: they are made again after a change."""
    import hashlib

    from vop_mm.demo import rendering, scenes
    digest = hashlib.sha256()
    for path in (__file__, rendering.__file__, scenes.__file__):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


def _is_whole(out: Path, settings: dict) -> bool:
    """Return whether a folder holds the complete demo with these settings."""
    import json

    try:
        if json.loads((out / SETTINGS).read_text(encoding='utf-8')) != settings:
            return False
        there = {path.name for path in (out / 'videos').iterdir() if path.stat().st_size > 0}
        items = [item for split in SPLITS
                 for item in json.loads((out / f'{split}.json').read_text(encoding='utf-8'))['data_list']]
    except (OSError, ValueError, KeyError):
        return False
    return len(items) == sum(settings['counts'].values()) and all(item['video'] in there for item in items)


def _plan(seed: int, counts: dict[str, int]) -> tuple[dict, list]:
    """Return annotations of all splits, and the clips to encode: (name, scene, seed of its brightness)."""
    import numpy as np

    from vop_mm.demo import caption, make_split, paraphrases
    annotations, jobs = {}, []
    # the last number of a seed is never 0: stills for pre-training use 0
    for number, (split, count) in enumerate(counts.items()):
        words = np.random.default_rng((seed, number, 1, 1))
        test = split != 'train'
        scenes = list(make_split((seed, number, 0, 1), count, unique=test))
        names = [f'{split}_{i:04d}' for i in range(count)]
        items = []
        for i, (scene, twin) in enumerate(scenes):
            captions = [caption(scene, words)] if test else paraphrases(scene)
            item = dict(video_id=names[i], video=f'{names[i]}.mp4', captions=captions, kind=scene.kind)
            if twin is not None:
                item['twin'] = names[twin]
            items.append(item)
            jobs.append((names[i], scene, (seed, number, 2, 1 + i)))
        metainfo = dict(dataset='demo', split=split, protocol='1:1' if test else '1:n')
        annotations[split] = dict(metainfo=metainfo, data_list=items)
    return annotations, jobs


def _encode_all(jobs: list, folder: Path, workers: int) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from rich.progress import track

    from vop_mm.utils.interrupts import end_with_parent, held_interrupts
    parts = [(jobs[i:i + 20], folder) for i in range(0, len(jobs), 20)]
    if workers == 1:
        done = map(_encode_part, parts)
        list(track(done, 'encoding clips', total=len(parts)))
        return
    with ProcessPoolExecutor(workers, get_context('spawn'), initializer=end_with_parent) as pool:
        try:
            with held_interrupts():
                done = pool.map(_encode_part, parts)  # starts the processes
            list(track(done, 'encoding clips', total=len(parts)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _encode_part(part: tuple[list, Path]) -> None:
    import numpy as np

    from vop_mm.demo import render
    jobs, folder = part
    times = (np.arange(FRAMES) + 0.5) / FRAMES
    for name, scene, seed in jobs:
        frames = render(scene.sprites, scene.background, times, SIZE)
        # no two recordings have exactly the same brightness; exact ties between a clip and its reverse would depend
        # more on how ties are counted than on the method
        frames += np.random.default_rng(seed).uniform(-LIGHT, LIGHT, 3).astype(np.float32)
        encode_clip(folder / f'{name}.mp4', np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8))


def encode_clip(path: Path, frames) -> None:
    """Encode a clip. The same frames give the same bytes.

    Args:
        path (Path): The mp4 file.
        frames (np.ndarray): uint8 [F, H, W, 3] RGB, even height and width.

    Raises:
        OSError: The file can't be written.
    """
    import av

    # One thread and bitexact: independent of machine and time. Constant quantizers: with rate control, bytes would
    # differ between runs, and key frames of higher quality would tell a clip from its reverse.
    with av.open(str(path), 'w', options={'fflags': '+bitexact'}) as container:
        stream = container.add_stream('libx264', rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        stream.options = {'preset': 'veryfast', 'threads': '1', 'flags': '+bitexact',
                          'x264-params': 'qp=12:ipratio=1:pbratio=1:aq-mode=0:mbtree=0'}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(stream.encode())


def _swap_in(new: Path, out: Path) -> None:
    """Replace an older folder by a finished one; the old one is moved next to the new one."""
    old = new.with_name('old')
    if out.exists():
        out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise


if __name__ == '__main__':
    run_cli(main)
