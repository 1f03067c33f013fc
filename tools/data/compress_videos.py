"""Make small copies of videos.

    python tools/data/compress_videos.py SRC_DIR OUT_DIR

Every video in SRC_DIR, including linked folders, becomes an h264 mp4 at the same relative path in OUT_DIR: short side
224 (smaller videos keep their size), all frames, no sound, rotated upright, with a key frame every second for fast
seeking. A second run continues where the first one stopped. Exit status: 0 if all are done, 1 or 2 for errors in the
arguments, 3 if some videos failed.
"""
import argparse
import errno
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from functools import cache
from pathlib import Path

_SETTINGS = 'compressed.json'
_QUALITY = '18'  # CRF of x264: visually close to the source
_OF_ONE_FILE = (errno.ENAMETOOLONG, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EIO, errno.EINVAL)
_WHOLE = 0.95  # minimum share of the source's length for a copy of a damaged file
_PATIENCE = 20  # timeout for ffmpeg, as a multiple of one minute plus the video's length


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

    from vop_mm.utils.cli import printable
    from vop_mm.utils.files import full_disk_error
    from vop_mm.utils.interrupts import end_children

    ffmpeg = find_ffmpeg()
    jobs, failed = _plan(args.src_dir, args.out_dir)
    _claim(args.out_dir, dict(short_side=args.short_side, fps=args.fps))
    total, damaged = len(jobs) + len(failed), {}
    lacking = [(source, out) for source, out in jobs if not _is_done(source, out)]
    with ThreadPoolExecutor(args.workers) as pool:
        futures = {pool.submit(compress, ffmpeg, source, out, args.short_side, args.fps): source
                   for source, out in lacking}
        try:
            for future in track(as_completed(futures), 'compressing', total=len(futures), disable=not futures):
                try:
                    if complaint := future.result():
                        damaged[futures[future]] = complaint
                except (VideoFailedError, OSError) as e:
                    if os.strerror(errno.ENOSPC) in str(e):  # all others would fail as well
                        raise full_disk_error(args.out_dir) from None
                    if isinstance(e, OSError) and e.errno not in _OF_ONE_FILE:
                        raise
                    failed[futures[future]] = getattr(e, 'strerror', None) or str(e)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_children()  # ffmpeg processes that are still running
            raise
    made = [pair for pair in jobs if pair[0] not in failed]
    new = sum(source not in failed for source, _ in lacking)
    before, after = (sum(pair[i].stat().st_size for pair in made) / 1e6 for i in (0, 1))
    print(f'{args.out_dir}: {len(made)} of {total} videos, {new} of them new; {before:.1f} MB became {after:.1f} MB')
    for title, found in (('damaged, but whole', damaged), ('failed', failed)):
        if found:
            print(f'{len(found)} {title}:')
            for source in sorted(found):
                print(printable(f'  {source}: {found[source]}'))
    return 3 if failed else 0


class VideoFailedError(RuntimeError):
    """Error if ffmpeg made no copy of a video, or only of a part of it."""


def find_ffmpeg() -> str:
    """Find ffmpeg on PATH or in the package imageio-ffmpeg.

    Returns:
        str: Path of the program.

    Raises:
        FileNotFoundError: There is no ffmpeg that encodes h264.
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


def _plan(src_dir: Path, out_dir: Path) -> tuple[list[tuple[Path, Path]], dict[Path, str]]:
    """Return (video, copy) for all videos of a folder, and the reasons why some get no copy."""
    from vop_mm.datasets.video_files import describe_left_out, find_videos
    if not src_dir.is_dir():
        raise FileNotFoundError(f'no such folder: {src_dir}')
    if out_dir.resolve().is_relative_to(src_dir.resolve()):
        raise ValueError(f'{out_dir} lies in {src_dir}: copies would be mistaken for videos')
    found = find_videos(src_dir)
    left_out = describe_left_out(found.left_out)
    if not found.videos:
        raise FileNotFoundError(f'no videos in {src_dir}; {left_out or "the folder is empty"}')
    if left_out:
        print(left_out)
    videos = [src_dir / path for path in found.videos]
    for folder in {video.parent for video in videos}:
        if folder.resolve().is_relative_to(out_dir.resolve()):
            raise ValueError(f'{folder} points into {out_dir}: copies would be mistaken for videos')
    failed = {src_dir / path: reason for path, reason in found.unreadable().items()}
    sources: dict[Path, list[Path]] = {}
    for video in videos:
        sources.setdefault((out_dir / video.relative_to(src_dir)).with_suffix('.mp4'), []).append(video)
    jobs = []
    for out, rivals in sources.items():
        # the one that keeps its name; if there is none, the copy could not be attributed
        chosen = next((video for video in rivals if video.name == out.name), rivals[0] if len(rivals) == 1 else None)
        if chosen:
            jobs.append((chosen, out))
        for video in rivals:
            if video != chosen:
                other = next(rival for rival in (chosen, *rivals) if rival not in (None, video))
                failed[video] = f'{other} would have the same copy {out}; rename one of them'
    renamed = sum(video.suffix != '.mp4' for video, _ in jobs)
    if renamed:
        print(f'{renamed} videos change their extension to .mp4: convert annotations with --video-dir {out_dir}')
    return jobs, failed


def _claim(out_dir: Path, settings: dict) -> None:
    """Write the settings to the folder, or reject one with copies of other settings; removes files of killed runs."""
    import json

    from vop_mm.utils.files import atomic_write, remove_leftovers
    for folder, _, _ in os.walk(out_dir):
        remove_leftovers(folder)
    file = out_dir / _SETTINGS
    if file.is_file():
        there = json.loads(file.read_text(encoding='utf-8'))
        for key in settings:
            if there.get(key) != settings[key]:
                raise ValueError(f'{out_dir} holds copies with another {key}: {there.get(key)} there, {settings[key]} '
                                 'here')
    elif out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise FileExistsError(f'{out_dir} neither empty nor compressed videos; choose another folder')
    else:
        out_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, 'w') as out:
            json.dump(settings, out)


def _is_done(source: Path, out: Path) -> bool:
    # a copy has the modification time of its source
    try:
        return out.is_file() and int(out.stat().st_mtime) == int(source.stat().st_mtime)
    except OSError:  # the name is too long; the attempt to make it will report it
        return False


def compress(ffmpeg: str, source: Path, out: Path, short_side: int = 224, fps: float | None = None) -> str | None:
    """Make a copy of one video.

    Args:
        ffmpeg (str): The program.
        source (Path): The video.
        out (Path): The copy, which is written completely or not at all. It gets the modification time of the source.
        short_side (int): Larger videos are scaled down to this. Defaults to 224.
        fps (float, optional): Frames per second. None: all frames are kept.

    Returns:
        str | None: Error message of ffmpeg if the copy is nevertheless as long as the source.

    Raises:
        VideoFailedError: No copy could be made, or it ends too early.
    """
    from vop_mm.datasets import VideoDecodeError
    from vop_mm.datasets.decoding import CODECS, DecodeProcess, Limits, open_video_file, probe
    from vop_mm.utils.files import atomic_path

    out.parent.mkdir(parents=True, exist_ok=True)
    limits = Limits.current()
    side = f'2*trunc(min({short_side},{{}})/2)'
    filters = [f'fps={fps:g}'] if fps else []
    filters.append(f"scale=w='if(lt(iw,ih),{side.format('iw')},-2)':h='if(lt(iw,ih),-2,{side.format('ih')})'")
    process = DecodeProcess(probe)
    try:
        info = process.call(str(source), str(source))
        video = open_video_file(str(source))
    except VideoDecodeError as e:
        raise VideoFailedError(e.reason) from None
    finally:
        process.close()
    limit = _PATIENCE * (60 + info.seconds)
    with closing(video), atomic_path(out) as beside:
        done = _run(
            limit, ['sh', '-c', f'ulimit -d {limits.memory // 1024}; exec "$0" "$@"',
             ffmpeg, '-hide_banner', '-nostdin', '-nostats', '-loglevel', 'level+info', '-y',
             # only this file, in its detected format, and no file that it refers to
             '-f', video.format, '-format_whitelist', video.format, '-protocol_whitelist', 'file',
             '-codec_whitelist', ','.join(CODECS), '-max_pixels', str(limits.pixels), '-t', str(3600 * limits.hours),
             '-i', video.name, '-map', f'0:{info.track}', '-an', '-sn', '-dn', '-vf', ','.join(filters),
             '-c:v', 'libx264', '-crf', _QUALITY, '-pix_fmt', 'yuv420p', '-force_key_frames', 'expr:gte(t,n_forced)',
             *_as_they_are(ffmpeg), '-threads', '1', '-f', 'mp4', '-progress', 'pipe:1', str(beside)],
            pass_fds=(video.file.fileno(), ))
        errors = [re.sub(r'^(\[.*?\] )*', '', line).replace(video.name, str(source))
                  for line in done.stderr.splitlines() if re.search(r'\[(error|fatal)\]', line)]
        # audio codecs are not on the whitelist, but audio is not converted anyway
        complaint = next((line for line in errors if 'not on whitelist' not in line), None)
        frames = re.findall(r'^frame=(\d+)', done.stdout, re.M)
        if done.returncode != 0 or not frames or int(frames[-1]) == 0:
            raise VideoFailedError(complaint or f'ffmpeg ended with status {done.returncode} and no frames')
        length = _seconds(done.stdout)
        if complaint and length < _WHOLE * info.seconds:
            raise VideoFailedError(f'ends after {length:.1f} of {info.seconds:.1f} s ({complaint})')
        source_time = source.stat().st_mtime
        os.utime(beside, (source_time, source_time))
    return complaint


@cache
def _as_they_are(ffmpeg: str) -> list[str]:
    """Return options that keep every frame and its time; by default, ffmpeg before 6 makes the frame rate constant."""
    known = subprocess.run([ffmpeg, '-hide_banner', '-h', 'long'], capture_output=True, text=True).stdout
    return ['-fps_mode' if '-fps_mode' in known else '-vsync', 'vfr']


def _run(limit: float, command: list[str], **options) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors='replace', timeout=limit, **options)
    except subprocess.TimeoutExpired:
        raise VideoFailedError(f'ffmpeg did not end within {limit:.0f} s') from None


def _seconds(progress: str) -> float:
    """Return the length of the copy that ffmpeg last reported, 0 if none."""
    times = re.findall(r'^out_time=(\d+):(\d+):(\d+\.?\d*)', progress, re.M)
    return sum(float(part) * unit for part, unit in zip(times[-1], (3600, 60, 1))) if times else 0.


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
