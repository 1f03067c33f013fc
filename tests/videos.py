"""Real video files for tests: every frame has its index painted in, so that decoded frames tell which they are."""
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_BITS = 10
_MS = Fraction(1, 1000)


def painted_frame(index: int, height: int = 48, width: int = 80) -> np.ndarray:
    """A frame whose vertical stripes are the bits of ``index``, the lowest first, uint8 [height, width, 3]."""
    bits = index >> np.arange(_BITS) & 1
    row = bits[np.arange(width) * _BITS // width] * np.uint8(255)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)


def read_index(frame: np.ndarray) -> int:
    """The index that :func:`painted_frame` painted in a frame [H, W, 3], after coding and resizing."""
    width = frame.shape[1]
    centers = ((np.arange(_BITS) + 0.5) * width / _BITS).astype(int)
    bits = frame[frame.shape[0] // 2, centers].mean(axis=-1) > 128
    return int((bits << np.arange(_BITS)).sum())


def encode_video(path: str | Path,
                 frames: int | Sequence[np.ndarray],
                 times: Sequence[float] | None = None,
                 fps: int = 25,
                 codec: str = 'h264',
                 first: int = 0,
                 size: tuple[int, int] = (48, 80),
                 pix_fmt: str = 'yuv420p',
                 max_b_frames: int | None = None,
                 open_gop: bool = False,
                 faststart: bool = False,
                 fragmented: bool = False,
                 aspect: Fraction | None = None,
                 transfer: int | None = None,
                 matrix: int | None = None,
                 options: dict[str, str] | None = None,
                 container_options: dict[str, str] | None = None) -> str:
    """Encode a video with PyAV.

    Args:
        path (str | Path): File; its extension names the container.
        frames (int | Sequence[np.ndarray]): How many painted frames, or frames uint8 or uint16 [H, W, 3] RGB.
        times (Sequence[float], optional): When each frame is shown, in seconds. None: ``fps``.
        first (int): Index that the first painted frame carries.
        size (tuple[int, int]): Height and width of painted frames.
        pix_fmt (str): ``'yuv420p10le'`` has 10 bits a value.
        max_b_frames (int, optional): B-frames in a row; pictures are then stored in another order than they are shown
            in. None: as the encoder likes.
        open_gop (bool): B-frames may refer to the key frame behind them.
        faststart (bool): Put the index (moov) of an mp4 before the pictures.
        fragmented (bool): An mp4 in parts with an index each, as it is streamed.
        aspect (Fraction, optional): Width of a pixel by its height. None: square.
        transfer (int, optional): Transfer characteristics that the file names: 16 is PQ, 18 is HLG, with BT.2020.
        matrix (int, optional): From RGB to what is stored, which the file names: 1 is BT.709, 5 is BT.601, 9 is
            BT.2020. None: BT.601, and the file doesn't say; with ``transfer``, 9.
        options (dict[str, str], optional): More of the encoder.
        container_options (dict[str, str], optional): More of the container.

    Returns:
        str: The path.
    """
    if isinstance(frames, int):
        frames = [painted_frame(first + i, *size) for i in range(frames)]
    flags = ['faststart'] * faststart + ['frag_keyframe', 'empty_moov'] * fragmented
    container_options = {**({'movflags': '+'.join(flags)} if flags else {}), **(container_options or {})}
    with av.open(str(path), 'w', options=container_options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.gop_size = 12
        if max_b_frames is not None:
            stream.codec_context.max_b_frames = max_b_frames
        stream.options = {'crf': '10', 'x264-params': f'open-gop={open_gop:d}',
                          'x265-params': f'open-gop={open_gop:d}:log-level=none', **(options or {})}
        if transfer is not None:
            stream.codec_context.color_trc, stream.codec_context.color_primaries, matrix = transfer, 9, 9
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        # MPEG-2 knows no other than whole frames
        stream.codec_context.time_base = Fraction(1, fps) if times is None else _MS
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb48le' if pixels.dtype == np.uint16 else 'rgb24')
            if matrix is not None:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=matrix)
            frame.time_base = stream.codec_context.time_base
            frame.pts = i if times is None else round(1000 * times[i])
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def cut_video(source: str | Path, path: str | Path, start: float, options: dict[str, str] | None = None) -> str:
    """Cut the beginning off a video without encoding it again, as ``ffmpeg -ss START -i SOURCE -c copy PATH`` does.

    Pictures are stored from the last key frame before ``start``; an edit list says which of them are shown.

    Args:
        start (float): Seconds; less than 0 shows nothing for a while first.
        options (dict[str, str], optional): Of the container.

    Returns:
        str: The path.
    """
    with av.open(str(source)) as container, av.open(str(path), 'w', options=options or {}) as cut:
        stream = container.streams.video[0]
        copy = cut.add_stream_from_template(stream)
        offset = round(start / stream.time_base)
        container.seek(max(offset, 0), stream=stream)
        for packet in container.demux(stream):
            if packet.dts is not None:
                packet.stream, packet.pts, packet.dts = copy, packet.pts - offset, packet.dts - offset
                cut.mux(packet)
    return str(path)


def spoil_frames(path: str | Path, which: slice) -> None:
    """Write over stored pictures, in the order in which they are stored."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(Path(path).read_bytes())
    for pos, size in places[which]:
        content[pos + 4:pos + size] = bytes([0xff]) * (size - 4)
    Path(path).write_bytes(content)


def encode_audio(path: str | Path) -> str:
    """An mp4 with half a second of silence and no video stream."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=44100)
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
            frame.rate, frame.pts = 44100, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def broken_videos(folder: str | Path) -> dict[str, str]:
    """Files that can't be decoded, by what is wrong with them."""
    folder = Path(folder)
    whole = Path(encode_video(folder / 'whole.mp4', 100)).read_bytes()
    front = Path(encode_video(folder / 'front.mp4', 100, faststart=True)).read_bytes()
    content = {
        'truncated': whole[:len(whole) // 2],
        'truncated_faststart': front[:len(front) * 2 // 3],
        'garbage': np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes(),
        'text': b'<html>404 Not Found</html>' * 20,
        'empty': b'',
    }
    paths = {}
    for name, data in content.items():
        paths[name] = str(folder / f'{name}.mp4')
        Path(paths[name]).write_bytes(data)
    paths['audio_only'] = encode_audio(folder / 'audio_only.mp4')
    (folder / 'whole.mp4').unlink()
    (folder / 'front.mp4').unlink()
    return paths
