"""Decoding: the configured pipeline beside the bare decoder, OpenCV seeking, the other decoder, and stored frames.

Everything decodes the same frames of the same file in turn, many times over, and is compared by the median ratio of
neighbours in time. Without --video that is an H.264 clip of 640x360 and 20 s, encoded here with x264's defaults.
"""
import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ._rounds import beside, measure, ratio

CONFIG = Path(__file__).resolve().parents[3] / 'configs' / '_base_' / 'datasets' / 'msrvtt.py'
STAGE = 'decode stage as configured'
OPENCV = 'OpenCV seeking, as CLIP4Clip and X-Pool do'
CACHE = 'stored frames, resized and cropped'
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
        ways[CACHE] = stored_frames(args.config, path, Path(folder) / 'store')
        times = measure(ways, args.repeat, 'decoding', warm_up=1)
    return [*(speed(name, times[name]) for name in times),
            beside('decode stage against the bare decoder: time', ratio(times[STAGE], times[bare]), at_most=1.1),
            beside('decode stage against OpenCV seeking: clips/s', ratio(times[OPENCV], times[STAGE]), at_least=1.5),
            beside('stored frames against the decode stage: clips/s', ratio(times[STAGE], times[CACHE]), at_least=20)]


def build_ways(config: Path, path: str) -> tuple[dict[str, Callable], str]:
    """What is compared: functions that give frames, by name; and which of them is the configured decoder alone."""
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


def stored_frames(config: Path, path: str, folder: Path) -> Callable:
    """What gives the clip's frames from a store, which is made first; the same frames as decoding gives."""
    import numpy as np
    from mmengine.config import Config
    from mmengine.dataset import Compose

    from vop_mm.datasets import FrameStoreWriter
    from vop_mm.datasets.transforms import FramesToStore, LoadCachedFrames, split_pipeline
    from vop_mm.registry import TRANSFORMS

    pipeline = Config.fromfile(config).test_dataloader.dataset.pipeline
    decode, clip = FramesToStore(pipeline), dict(filename=path, video='clip')
    writer = FrameStoreWriter(folder, decode.settings)
    writer.add('clip', None, None, *decode(clip))
    writer.set_finished(True)
    writer.close()
    front, _ = split_pipeline(pipeline)
    load = LoadCachedFrames(str(folder), front)
    expected = Compose([TRANSFORMS.build(step) for step in front])(dict(clip))['imgs']
    if not np.array_equal(np.stack(load(dict(clip))['imgs']), np.stack(expected)):
        raise RuntimeError('stored frames are other frames than decoded ones')
    return lambda: load(dict(clip))['imgs']


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


def speed(name: str, times: list[float]) -> dict:
    """A row: clips per second."""
    value = 1 / statistics.median(times)
    return dict(what=name, figure=f'{value:.2f} clips/s', value=value, fastest=1 / min(times))


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
