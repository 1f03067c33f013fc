"""The demo's clips: rendered, encoded, and annotated."""
import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from rich.progress import track

from vop_mm.utils.files import remove_leftovers, temporary_folder
from vop_mm.utils.interrupts import end_with_parent, held_interrupts

from . import rendering, scenes
from .rendering import render
from .scenes import caption, make_split, paraphrases

FRAMES, SIZE, FPS = 36, 64, 12  # 36: the middles of 12 equal segments are the same frames in a clip and its reverse
LIGHT = 0.006  # variation of brightness between clips, as a fraction
SETTINGS = 'settings.json'


def make_clips(out_dir: Path, seed: int, counts: dict[str, int], workers: int) -> str:
    """Render and encode the clips of all splits, and write their annotations.

    Args:
        out_dir (Path): Folder to make, which gets train.json, dev.json, test.json and videos/. If it holds the same
            clips already, nothing is done.
        seed (int): Other seeds give other clips.
        counts (dict): Number of clips of ``train``, ``dev`` and ``test``.
        workers (int): Number of processes that encode.

    Returns:
        str: What was done, in one line.

    Raises:
        OSError: The folder holds something else, or can't be written.
        ValueError: There are not enough different scenes.
    """
    out = out_dir.resolve()  # resolves a link to the folder that will be replaced
    settings = dict(seed=seed, counts=counts, frames=FRAMES, size=SIZE, fps=FPS, code=_code_fingerprint())
    remove_leftovers(out.parent)
    if _is_whole(out, settings):
        return f'{out_dir} exists with these settings: nothing to do'
    if out.exists() and not (out / SETTINGS).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f'{out_dir} is not empty and not the demo; choose another folder')
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_dir() and not os.access(out, os.W_OK):
        raise PermissionError(f'{out_dir} is not writable')
    # everything is written to a temporary folder next to it and renamed at the end
    with temporary_folder(out.parent, out.name) as beside:
        new = beside / 'new'
        (new / 'videos').mkdir(parents=True)
        annotations, jobs = plan_clips(seed, counts)
        _encode_all(jobs, new / 'videos', workers)
        for split, content in annotations.items():
            (new / f'{split}.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        (new / SETTINGS).write_text(json.dumps(settings, indent=1) + '\n', encoding='utf-8')
        _swap_in(new, out)
    return (f'wrote {sum(counts.values())} clips to {out_dir}: '
            + ', '.join(f'{count} {split}' for split, count in counts.items()))


def _code_fingerprint() -> str:
    """Return a hash of the code that makes the clips: they are made again after a change."""
    digest = hashlib.sha256()
    for path in (__file__, rendering.__file__, scenes.__file__):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


def _is_whole(out: Path, settings: dict) -> bool:
    """Return whether a folder holds the complete demo with these settings."""
    try:
        if json.loads((out / SETTINGS).read_text(encoding='utf-8')) != settings:
            return False
        there = {path.name for path in (out / 'videos').iterdir() if path.stat().st_size > 0}
        items = [item for split in settings['counts']
                 for item in json.loads((out / f'{split}.json').read_text(encoding='utf-8'))['data_list']]
    except (OSError, ValueError, KeyError):
        return False
    return len(items) == sum(settings['counts'].values()) and all(item['video'] in there for item in items)


def plan_clips(seed: int, counts: dict[str, int]) -> tuple[dict, list]:
    """Plan the clips of all splits.

    Args:
        seed (int): Random seed.
        counts (dict): Number of clips by split.

    Returns:
        tuple[dict, list]: Annotations by split, and the clips to encode: (name, scene, seed of its brightness).
    """
    annotations, jobs = {}, []
    # the last number of a seed is never 0: stills for pre-training use 0
    for number, (split, count) in enumerate(counts.items()):
        words = np.random.default_rng((seed, number, 1, 1))
        test = split != 'train'
        made = list(make_split((seed, number, 0, 1), count, unique=test))
        names = [f'{split}_{i:04d}' for i in range(count)]
        items = []
        for i, (scene, twin) in enumerate(made):
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
    jobs, folder = part
    times = (np.arange(FRAMES) + 0.5) / FRAMES
    for name, scene, seed in jobs:
        frames = render(scene.sprites, scene.background, times, SIZE)
        # no two recordings have exactly the same brightness; exact ties between a clip and its reverse would depend
        # more on how ties are counted than on the method
        frames += np.random.default_rng(seed).uniform(-LIGHT, LIGHT, 3).astype(np.float32)
        _encode(folder / f'{name}.mp4', np.round(np.clip(frames, 0, 1) * 255).astype(np.uint8))


def _encode(path: Path, frames: np.ndarray) -> None:
    """Encode a clip, uint8 [F, H, W, 3] RGB. The same frames give the same bytes."""
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
