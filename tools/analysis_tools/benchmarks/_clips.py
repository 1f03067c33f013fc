"""Videos for the benchmarks."""
from contextlib import closing
from pathlib import Path

import av
import numpy as np


def encode_clip(path: Path, seconds: int = 20, fps: int = 25, height: int = 360, width: int = 640) -> Path:
    """Encode a clip that moves, varies in brightness and has some noise, like a camera recording."""
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


def repeat_clip(source: Path, path: Path, times: int) -> Path:
    """Repeat a clip several times without encoding it again."""
    with av.open(str(source)) as whole, av.open(str(path), 'w') as out:
        stream = whole.streams.video[0]
        packets = [packet for packet in whole.demux(stream) if packet.size]
        copy = out.add_stream_from_template(stream)
        parts = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in packets]
        length, base = len(packets) * packets[0].duration, packets[0].time_base
        for i in range(times):
            for content, pts, dts, is_key in parts:
                packet = av.Packet(content)
                packet.stream, packet.time_base, packet.is_keyframe = copy, base, is_key
                packet.pts, packet.dts = pts + i * length, dts + i * length
                out.mux(packet)
    return path


def store_clips(pipeline: list[dict], clips: list[dict], folder: Path) -> None:
    """Store the frames that a pipeline reads from clips with ``video`` and ``filename``."""
    from vop_mm.datasets import FrameStoreWriter
    from vop_mm.datasets.clip_storing import ClipStoring

    storing = ClipStoring(pipeline)
    folder.parent.mkdir(exist_ok=True)
    with closing(FrameStoreWriter(folder, storing.settings)) as writer:
        for clip in clips:
            writer.add(clip['video'], None, None, *storing(clip))
        writer.set_finished(True)
