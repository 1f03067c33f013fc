"""Decoding: reading a clip as configured, compared with the bare readers, OpenCV seeking, and stored frames.

All methods read the same frames of the same file in turn, many times, and are compared by the median ratio within a
round. Without --video, this is an H.264 clip of 640x360 and 20 s; a clip of 1920x1080 and 30 s in the middle of 2 hours
are read as well. The clips are encoded here with x264's defaults.
"""
import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ._models import ROOT
from ._rounds import beside, measure, ratio

CONFIG = ROOT / 'configs/_base_/datasets/msrvtt.py'
STAGE = 'ReadClip as configured'
READER, DECORD = 'its reader alone', 'decord alone'
OPENCV = 'OpenCV seeking, as CLIP4Clip and X-Pool do'
CACHE = 'stored frames'
HOURS, WINDOW = 2, (3585., 3615.)  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument('--config', type=Path, default=CONFIG, help='its test pipeline is measured (default: MSR-VTT)')
    parser.add_argument('--video', type=Path, help='read this file alone')
    parser.add_argument('--repeat', type=int, default=30, metavar='N', help='rounds (default: 30)')


def run(args: argparse.Namespace) -> list[dict]:
    """Run the benchmark and return the rows of the table."""
    if args.repeat < 1:
        raise ValueError(f'--repeat must be at least 1, got {args.repeat}')
    if args.video:
        from vop_mm.datasets.decoding import check_file
        check_file(str(args.video))
    from vop_mm.config import read_config
    from vop_mm.datasets.transforms import split_pipeline
    from vop_mm.utils.files import temporary_folder

    from ._clips import encode_clip, repeat_clip

    pipeline = read_config(args.config).test_dataloader.dataset.pipeline
    read = split_pipeline(pipeline).read
    with temporary_folder(None, 'benchmark') as folder:
        path = str(args.video or encode_clip(folder / 'clip.mp4'))
        rows = whole_video(pipeline, read, path, Path(folder) / 'store', args.repeat)
        if not args.video:
            large = encode_clip(folder / 'large.mp4', height=1080, width=1920)
            rows.append(against_decord('1920x1080, 20 s', bare(read, str(large)), args.repeat, at_most=1.))
            long = repeat_clip(folder / 'clip.mp4', folder / 'long.mp4', HOURS * 180)
            rows.append(against_decord(f'30 s of {HOURS} h', bare(read, str(long), WINDOW), args.repeat, at_most=.4))
            opening = measure({'': lambda: open_reader(read, str(long), WINDOW).close()}, args.repeat, 'opening')['']
            rows.append(dict(what=f'opening 30 s of {HOURS} h', figure=f'{statistics.median(opening):.3f} s',
                             value=statistics.median(opening)))
    return rows


def whole_video(pipeline: list[dict], read: dict, path: str, store: Path, repeat: int) -> list[dict]:
    """Measure all methods of reading one file."""
    from vop_mm.registry import TRANSFORMS

    stage, alone = TRANSFORMS.build(dict(read, size=None)), bare(read, path)
    indices = indices_of(read, path)
    ways = {STAGE: lambda: stage(dict(filename=path))['imgs'][:len(indices)], **alone,
            OPENCV: partial(opencv_seeking, path, indices)}
    check_same_frames(ways)
    ways[CACHE] = stored_frames(pipeline, path, store)
    times = measure(ways, repeat, 'reading', warm_up=1)
    return [*(speed(name, times[name]) for name in times),
            beside('ReadClip against its reader alone: time', ratio(times[STAGE], times[READER]), at_most=1.1),
            beside('ReadClip against OpenCV seeking: clips/s', ratio(times[OPENCV], times[STAGE]), at_least=1.3),
            beside('stored frames against ReadClip: clips/s', ratio(times[STAGE], times[CACHE]), at_least=20),
            against_decord('this file', alone, repeat, at_most=1.)]


def against_decord(what: str, ways: dict[str, Callable], repeat: int, at_most: float) -> dict:
    """Return a row that compares the CPU time of opening a file and reading frames between the reader and decord."""
    check_same_frames(ways)
    times = measure(ways, repeat, what, warm_up=1, clock=time.process_time)
    return beside(f'its reader against decord, {what}: CPU time', ratio(times[READER], times[DECORD]), at_most=at_most)


def bare(read: dict, path: str, window: tuple[float, float] | None = None) -> dict[str, Callable]:
    """Return functions that read the same frames of a file or a part of it, with the configured reader and decord."""
    import numpy as np

    indices, first = indices_of(read, path, window), 0
    if window is not None:
        import decord
        video = decord.VideoReader(path, num_threads=1)
        times = video.get_frame_timestamp(range(len(video)))[:, 0]
        first = int(np.searchsorted(times - times[0], open_reader(read, path, window).timestamps()[0] - 1e-3))
    return {READER: lambda: open_reader(read, path, window).get_batch(indices).asnumpy(),
            DECORD: partial(decord_alone, path, indices + first)}


def indices_of(read: dict, path: str, window: tuple[float, float] | None = None):
    """Return the middle frames of the configured number of segments."""
    from vop_mm.datasets.transforms import sample_frames
    return sample_frames(len(open_reader(read, path, window)), read.get('num_frames', 12))


def open_reader(read: dict, path: str, window: tuple[float, float] | None = None):
    """Open a file, or a part of it, with the configured reader."""
    from vop_mm.registry import READERS
    READERS.import_from_location()
    return READERS.module_dict[read.get('reader', 'PyAVReader')](path, 1, *(window or (None, None)))


def stored_frames(pipeline: list[dict], path: str, folder: Path) -> Callable:
    """Store the clip's frames and return a function that loads them; checks that they equal the decoded frames."""
    import numpy as np

    from vop_mm.registry import TRANSFORMS

    from ._clips import store_clips

    clip = dict(filename=path, video='clip')
    store_clips(pipeline, [clip], folder)
    load = TRANSFORMS.build(dict(pipeline[0], store=str(folder)))
    expected = TRANSFORMS.build(pipeline[0])(dict(clip))['imgs']
    if not np.array_equal(np.stack(load(dict(clip))['imgs']), np.stack(expected)):
        raise RuntimeError('stored frames are other frames than decoded ones')
    return lambda: load(dict(clip))['imgs']


def decord_alone(path: str, indices):
    """Read frames with decord, [n, H, W, 3]."""
    import decord
    return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def opencv_seeking(path: str, indices):
    """Read frames with OpenCV by seeking, [n, H, W, 3]."""
    import cv2
    import numpy as np

    capture = cv2.VideoCapture(path)
    frames = []
    for index in indices:
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        frames.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames)


def check_same_frames(ways: dict[str, Callable]) -> None:
    """Check that all functions decode the same frames; decoders differ slightly in color conversion."""
    import numpy as np

    reference, *others = ((name, np.stack(way()).astype(np.int16)) for name, way in ways.items())
    for name, frames in others:
        if frames.shape != reference[1].shape or np.abs(frames - reference[1]).mean() > 3:
            raise RuntimeError(f'{name}: other frames than {reference[0]}')


def speed(name: str, times: list[float]) -> dict:
    """Return a row with clips per second."""
    value = 1 / statistics.median(times)
    return dict(what=name, figure=f'{value:.2f} clips/s', value=value, fastest=1 / min(times))
