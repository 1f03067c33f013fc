"""Decoding: the configured pipeline beside the bare decoder, OpenCV seeking, and the other decoder.

Everything decodes the same frames of the same file in turn, many times over, and is compared by the median ratio of
neighbours in time. Without --video that is an H.264 clip of 640x360 and 20 s, encoded here with x264's defaults.
"""
import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[3] / 'configs' / '_base_' / 'datasets' / 'msrvtt.py'
STAGE = 'decode stage as configured'
OPENCV = 'OpenCV seeking, as CLIP4Clip and X-Pool do'
DECORD, TORCHCODEC = 'OpenVideo', 'OpenVideoTorchCodec'  # opening steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument('--config', type=Path, default=CONFIG, help='its test pipeline is measured (default: MSR-VTT)')
    parser.add_argument('--video', type=Path, help='decode this file')
    parser.add_argument('--repeat', type=int, default=30, metavar='N', help='rounds (default: 30)')


def run(args: argparse.Namespace) -> list[dict]:
    """Measure; rows as benchmark.py prints them."""
    if args.repeat < 1:
        raise ValueError(f'--repeat must be at least 1, got {args.repeat}')
    if args.video:
        from vop_mm.datasets.decoding import check_file
        check_file(str(args.video))
    with tempfile.TemporaryDirectory() as folder:
        path = str(args.video or encode_clip(Path(folder) / 'clip.mp4'))
        ways, bare = build_ways(args.config, path)
        check_same_frames(ways)
        times = measure(ways, args.repeat)
    return [*(speed(name, times[name]) for name in times),
            compare('decode stage against the bare decoder: time', times[STAGE], times[bare], at_most=1.1),
            compare('decode stage against OpenCV seeking: clips/s', times[OPENCV], times[STAGE], at_least=1.5)]


def build_ways(config: Path, path: str) -> tuple[dict[str, Callable], str]:
    """What is compared: functions that give frames, by name; and which of them is the configured decoder alone.

    Reading from a frame store belongs here, too.
    """
    from mmengine.config import Config

    from vop_mm.datasets.decoding import torchcodec_problem
    from vop_mm.utils import register_all_modules

    register_all_modules()
    pipeline = Config.fromfile(config).test_dataloader.dataset.pipeline
    configured = opening_step(pipeline).type
    stage = decode_stage(pipeline, path)
    indices = stage(dict(filename=path))['frame_inds']
    bare = {DECORD: ('decord alone', partial(decord_alone, path, indices)),
            TORCHCODEC: ('torchcodec alone', partial(torchcodec_alone, path, indices))}
    ways = {STAGE: lambda: stage(dict(filename=path))['imgs']}
    ways.update([bare[configured], (OPENCV, partial(opencv_seeking, path, indices))])  # close ones side by side
    other = DECORD if configured == TORCHCODEC else TORCHCODEC
    if other == DECORD or torchcodec_problem() is None:
        other_stage = decode_stage(pipeline, path, opener=other)
        ways[f'decode stage with {other}'] = lambda: other_stage(dict(filename=path))['imgs']
        ways.update([bare[other]])
    return ways, bare[configured][0]


def opening_step(pipeline: list[dict]) -> dict:
    """The step that opens the file, which may stand within another."""
    for step in pipeline:
        if step.type in (DECORD, TORCHCODEC):
            return step
        if 'transforms' in step:
            return opening_step(step.transforms)
    raise ValueError(f'the config has no {DECORD} or {TORCHCODEC} in its test pipeline')


def decode_stage(pipeline: list[dict], path: str, opener: str | None = None) -> Callable:
    """The pipeline's steps until there are frames, with another opening step where ``opener`` names one."""
    import copy

    from mmengine.dataset import Compose

    from vop_mm.registry import TRANSFORMS

    pipeline = copy.deepcopy(pipeline)
    if opener:
        opening_step(pipeline).type = opener
    built = []
    for step in pipeline:
        built.append(TRANSFORMS.build(step))
        if 'imgs' in Compose(built)(dict(filename=path)):
            return Compose(built)
    raise ValueError('no step of the test pipeline decodes')


def decord_alone(path: str, indices):
    """Frames, [n, H, W, 3]."""
    import decord
    return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def torchcodec_alone(path: str, indices):
    """Frames, [n, H, W, 3]."""
    from torchcodec.decoders import VideoDecoder
    return VideoDecoder(path, dimension_order='NHWC', num_ffmpeg_threads=1).get_frames_at(indices.tolist()).data.numpy()


def opencv_seeking(path: str, indices):
    """Frames, [n, H, W, 3]."""
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
    """Whether all decode the same pictures; decoders convert colours a little differently."""
    import numpy as np

    reference = np.stack(ways[STAGE]()).astype(np.int16)
    for name, way in ways.items():
        frames = np.stack(way())
        if frames.shape != reference.shape or np.abs(frames - reference).mean() > 3:
            raise RuntimeError(f'{name}: other frames than {STAGE}')


def measure(ways: dict[str, Callable], repeat: int) -> dict[str, list[float]]:
    """Seconds of every way in every round."""
    from rich.console import Console
    from rich.progress import track

    times = {name: [] for name in ways}
    for _ in track(range(repeat), 'decoding', transient=True, console=Console(stderr=True)):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return times


def speed(name: str, times: list[float]) -> dict:
    """A row: clips per second."""
    value = 1 / statistics.median(times)
    return dict(what=name, figure=f'{value:.2f} clips/s', value=value, fastest=1 / min(times))


def compare(what: str, times: list[float], others: list[float], at_least: float | None = None,
            at_most: float | None = None) -> dict:
    """A row: ``times`` over ``others``, beside its target."""
    value = statistics.median(a / b for a, b in zip(times, others))
    target = f'at least {at_least:g} x' if at_most is None else f'at most {at_most:g} x'
    met = value >= at_least if at_most is None else value <= at_most
    return dict(what=what, figure=f'{value:.2f} x', value=value, target=target, met=met)


def encode_clip(path: Path, seconds: int = 20, fps: int = 25, height: int = 360, width: int = 640) -> Path:
    """A clip whose picture moves and turns lighter and darker, with some noise, as a camera's does."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (height // 40, width // 20, 3)).astype(np.float32)
    scene = coarse.repeat(40, 0).repeat(40, 1)  # [H, 2 W, 3]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('h264', rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, 'yuv420p'
        for i in range(seconds * fps):
            left = i * width // (seconds * fps)
            picture = scene[:, left:left + width] * (1 + 0.2 * np.sin(i / 10)) + rng.normal(0, 4, (height, width, 1))
            frame = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
