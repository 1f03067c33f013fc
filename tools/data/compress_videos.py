"""Make small copies of videos: python tools/data/compress_videos.py SRC_DIR OUT_DIR

Every video below SRC_DIR becomes an h264 mp4 at the same place below OUT_DIR: short side 224 (smaller ones keep their
size), all frames, no sound, turned upright, a key frame every second so that frames are found quickly. A second run
goes on where the first one stopped. Exit status: 0 all done, 1 or 2 an error in what was asked for, 3 some videos
failed.
"""
import argparse
import errno
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

_EXTENSIONS = {'.3gp', '.avi', '.flv', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts', '.ogv', '.ts',
               '.vob', '.webm', '.wmv'}
_SETTINGS = 'compressed.json'
_QUALITY = '18'  # of x264: hardly to be told from the source
_WHOLE = 0.95  # of the source's length, below which a copy of a damaged file is not taken


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Make small h264 copies of all videos of a folder, with ffmpeg.')
    parser.add_argument('src_dir', metavar='SRC_DIR', type=Path, help='folder of videos, searched to any depth')
    parser.add_argument('out_dir', metavar='OUT_DIR', type=Path, help='where the copies go')
    parser.add_argument('--short-side', type=int, metavar='N', default=224,
                        help='larger videos are scaled down to this (default: 224)')
    parser.add_argument('--fps', type=float, metavar='X',
                        help='frames per second (default: as they are; CLIP4Clip takes 3)')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1,
                        help='videos at a time, one core each (default: one per core)')
    args = parser.parse_args()
    if args.short_side < 2 or args.short_side % 2 or args.workers < 1 or (args.fps is not None and args.fps <= 0):
        parser.error('--short-side must be even and at least 2, --workers at least 1, --fps more than 0')
    return args


def main() -> int:
    args = parse_args()
    from rich.progress import track

    from vop_mm.utils.files import full_disk_error

    ffmpeg = find_ffmpeg()
    jobs = _plan(args.src_dir, args.out_dir)
    _claim(args.out_dir, dict(short_side=args.short_side, fps=args.fps))
    lacking = [(source, out) for source, out in jobs if not _is_done(source, out)]
    failed, damaged = {}, {}
    with ThreadPoolExecutor(args.workers) as pool:
        futures = {pool.submit(compress, ffmpeg, source, out, args.short_side, args.fps): source
                   for source, out in lacking}
        try:
            for future in track(as_completed(futures), 'compressing', total=len(futures), disable=not futures):
                try:
                    if complaint := future.result():
                        damaged[futures[future]] = complaint
                except VideoFailedError as e:
                    if os.strerror(errno.ENOSPC) in str(e):  # all others would fail as well
                        raise full_disk_error(args.out_dir) from None
                    failed[futures[future]] = str(e)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    before, after = (sum(pair[i].stat().st_size for pair in jobs if pair[0] not in failed) / 1e6 for i in (0, 1))
    print(f'{args.out_dir}: {len(jobs) - len(failed)} of {len(jobs)} videos, {len(lacking) - len(failed)} of them new; '
          f'{before:.1f} MB became {after:.1f} MB')
    for title, found in (('damaged, but whole', damaged), ('failed', failed)):
        if found:
            print(f'{len(found)} {title}:')
            for source in sorted(found):
                print(f'  {source}: {found[source]}')
    return 3 if failed else 0


class VideoFailedError(RuntimeError):
    """ffmpeg made no copy of a video, or not of all of it."""


def find_ffmpeg() -> str:
    """The ffmpeg on PATH, or that of the package imageio-ffmpeg.

    Returns:
        str: The program.

    Raises:
        FileNotFoundError: There is none that encodes h264.
    """
    import shutil
    candidates = [shutil.which('ffmpeg')]
    try:
        import imageio_ffmpeg
        candidates.append(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        pass
    found = [candidate for candidate in candidates if candidate]
    for candidate in found:
        encoders = subprocess.run([candidate, '-hide_banner', '-encoders'], capture_output=True, text=True).stdout
        if ' libx264 ' in encoders:
            return candidate
    what = f'{found[0]} has no libx264' if found else 'no ffmpeg on PATH'
    raise FileNotFoundError(f'{what}: install one (apt install ffmpeg, conda install -c conda-forge ffmpeg), or: '
                            'pip install imageio-ffmpeg')


def _plan(src_dir: Path, out_dir: Path) -> list[tuple[Path, Path]]:
    """(video, its copy) for all videos of a folder."""
    if not src_dir.is_dir():
        raise FileNotFoundError(f'no such folder: {src_dir}')
    if out_dir.resolve().is_relative_to(src_dir.resolve()):
        raise ValueError(f'{out_dir} lies in {src_dir}: copies would be taken for videos')
    files = sorted(path for path in src_dir.rglob('*') if path.is_file())
    videos = [path for path in files if path.suffix.lower() in _EXTENSIONS]
    if not videos:
        raise FileNotFoundError(f'no videos in {src_dir} ({len(files)} files of other kinds)')
    if len(videos) < len(files):
        print(f'{len(files) - len(videos)} of {len(files)} files are no videos by their extension, and left out')
    outs: dict[Path, Path] = {}
    for video in videos:
        out = (out_dir / video.relative_to(src_dir)).with_suffix('.mp4')
        if out in outs:
            raise ValueError(f'{outs[out]} and {video} would have the same copy {out}')
        outs[out] = video
    renamed = sum(video.suffix != '.mp4' for video in videos)
    if renamed:
        print(f'{renamed} videos change their extension to .mp4: convert annotations with --video-dir {out_dir}')
    return [(video, out) for out, video in outs.items()]


def _claim(out_dir: Path, settings: dict) -> None:
    """Leave the settings in the folder, or refuse one with copies of other settings; remove what a killed run left."""
    import json

    from vop_mm.utils.files import atomic_write
    file = out_dir / _SETTINGS
    if file.is_file():
        there = json.loads(file.read_text(encoding='utf-8'))
        for key in settings:
            if there.get(key) != settings[key]:
                raise ValueError(f'{out_dir} holds copies with another {key}: {there.get(key)} there, {settings[key]} '
                                 'here')
    elif out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise FileExistsError(f'{out_dir} holds something else than compressed videos; name another folder')
    else:
        out_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, 'w') as out:
            json.dump(settings, out)
    for left in out_dir.rglob('.*.tmp'):
        left.unlink()


def _is_done(source: Path, out: Path) -> bool:
    # a copy carries its source's time
    return out.is_file() and int(out.stat().st_mtime) == int(source.stat().st_mtime)


def compress(ffmpeg: str, source: Path, out: Path, short_side: int = 224, fps: float | None = None) -> str | None:
    """Make a copy of one video.

    Args:
        ffmpeg (str): The program.
        source (Path): The video.
        out (Path): The copy; there as a whole or not at all. It gets the source's time.
        short_side (int): Larger videos are scaled down to this. Defaults to 224.
        fps (float, optional): Frames per second. None: all frames as they are.

    Returns:
        str | None: What ffmpeg complained of, though the copy is as long as the source.

    Raises:
        VideoFailedError: No copy could be made, or one that ends too early.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    side = f'2*trunc(min({short_side},{{}})/2)'
    filters = [f'fps={fps:g}'] if fps else []
    filters.append(f"scale=w='if(lt(iw,ih),{side.format('iw')},-2)':h='if(lt(iw,ih),-2,{side.format('ih')})'")
    beside = out.with_name(f'.{out.name}.{os.getpid()}.tmp')
    try:
        done = subprocess.run(
            [ffmpeg, '-hide_banner', '-nostdin', '-nostats', '-loglevel', 'level+info', '-y', '-i', str(source),
             '-map', '0:v:0', '-an', '-sn', '-dn', '-vf', ','.join(filters), '-c:v', 'libx264',
             '-crf', _QUALITY, '-pix_fmt', 'yuv420p', '-force_key_frames', 'expr:gte(t,n_forced)',
             '-threads', '1', '-f', 'mp4', '-progress', 'pipe:1', str(beside)],
            capture_output=True, text=True, errors='replace')
        errors = [line for line in done.stderr.splitlines() if re.search(r'\[(error|fatal)\]', line)]
        complaint = re.sub(r'^(\[.*?\] )*', '', errors[0]) if errors else None
        if complaint and 'matches no streams' in complaint:
            complaint = 'no video stream'
        frames = re.findall(r'^frame=(\d+)', done.stdout, re.M)
        if done.returncode != 0 or not frames or int(frames[-1]) == 0:
            raise VideoFailedError(complaint or f'ffmpeg ended with status {done.returncode} and no frames')
        length, wanted = _seconds(r'^out_time=', done.stdout), _seconds(r'Duration: ', done.stderr)
        if complaint and wanted and length < _WHOLE * wanted:
            raise VideoFailedError(f'ends after {length:.1f} of {wanted:.1f} s ({complaint})')
        source_time = source.stat().st_mtime
        os.utime(beside, (source_time, source_time))
        os.replace(beside, out)
        return complaint
    finally:
        beside.unlink(missing_ok=True)


def _seconds(before: str, text: str) -> float:
    """The last time that stands behind something, 0 without one."""
    times = re.findall(before + r'(\d+):(\d+):(\d+\.?\d*)', text, re.M)
    return sum(float(part) * unit for part, unit in zip(times[-1], (3600, 60, 1))) if times else 0.


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
