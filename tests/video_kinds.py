"""Small videos of every kind that is read, made with PyAV alone, and what is painted in their frames."""
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from tests.videos import cut_video, encode_audio, encode_video, painted_frame

FRAMES = 60
TIMES = np.concatenate([[0], np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.2, 0.5], FRAMES - 1))])
_PLAIN = {
    'h264.mp4': {},
    'h264.mkv': {},
    'h264.flv': {},
    'h264.avi': {},
    'h264.ts': {},
    'h264.m2ts': {},
    'h264_no_b.avi': dict(max_b_frames=0),
    'h264_10_bit.mp4': dict(pix_fmt='yuv420p10le'),
    'h264_444.mp4': dict(pix_fmt='yuv444p'),
    'h264_full_range.mp4': dict(pix_fmt='yuvj420p'),
    'h264_open.mp4': dict(size=(120, 160), open_gop=True),
    'h264_open.ts': dict(size=(120, 160), open_gop=True),
    'h264_open_fragmented.mp4': dict(size=(120, 160), open_gop=True, fragmented=True),
    'h264_intra_refresh.mp4': dict(size=(120, 160), max_b_frames=0,
                                   options={'x264-params': 'intra-refresh=1:bframes=0:keyint=12'}),
    'fragmented.mp4': dict(fragmented=True),
    'faststart.mp4': dict(faststart=True),
    'late.asf': {},
    'hevc.mp4': dict(codec='hevc'),
    'hevc_10_bit.mp4': dict(codec='hevc', pix_fmt='yuv420p10le'),
    'hevc_open.mp4': dict(codec='hevc', size=(120, 160), open_gop=True),
    'hevc_open.mkv': dict(codec='hevc', size=(120, 160), open_gop=True),
    'vp8.webm': dict(codec='libvpx'),
    'vp9.webm': dict(codec='libvpx-vp9'),
    'av1.mp4': dict(codec='libsvtav1', size=(72, 96)),
    'av1.webm': dict(codec='libsvtav1', size=(72, 96)),
    'mpeg4.avi': dict(codec='mpeg4', max_b_frames=0),
    'mpeg4_b.avi': dict(codec='mpeg4', max_b_frames=2),
    'mpeg4_b.mkv': dict(codec='mpeg4', max_b_frames=2),
    'mpeg2.mkv': dict(codec='mpeg2video', max_b_frames=2),
    'mpeg2.ts': dict(codec='mpeg2video', max_b_frames=2),
    'mpeg2.mpg': dict(codec='mpeg2video', max_b_frames=2),
    'mpeg2.vob': dict(codec='mpeg2video', max_b_frames=2),
    'wmv2.wmv': dict(codec='wmv2'),
    'flv1.flv': dict(codec='flv'),
    'mjpeg.avi': dict(codec='mjpeg', pix_fmt='yuvj420p'),
    'prores.mov': dict(codec='prores_ks', pix_fmt='yuv422p10le'),
    'animated.gif': dict(codec='gif', pix_fmt='rgb8'),
    'no_duration.mkv': dict(container_options={'live': '1'}),
    'no_duration.webm': dict(codec='libvpx', container_options={'live': '1'}),
    'männchen läuft – 走 🎬.mp4': {},
    'vfr.mp4': dict(times=TIMES),
    'vfr.mkv': dict(times=TIMES + .5),
    **{f'short{n}.mp4': dict(frames=n) for n in (1, 2, 5)},
}
NAMES = (*_PLAIN, 'cut.mp4', 'cut_at_key.mp4', 'delayed.mp4', 'cut.mkv', 'two_tracks.mov', 'two_tracks.mkv',
         'cover_first.mp4', 'sound_first.mp4', 'sound_first.mkv')


def make_kinds(folder: Path) -> dict[str, list[int]]:
    """Write one video of each of ``NAMES`` of which this FFmpeg has an encoder.

    Returns:
        dict[str, list[int]]: The painted indices of each, in the order in which they are shown.
    """
    made = {}
    for name, options in _PLAIN.items():
        options = dict(options)
        frames = options.pop('frames', FRAMES)
        if options.get('codec', 'h264') in av.codecs_available or 'codec' not in options:
            encode_video(folder / name, frames, **options)
            made[name] = list(range(frames))
    for name, start, first in (('cut.mp4', .6, 15), ('cut_at_key.mp4', .48, 12), ('delayed.mp4', -.5, 0)):
        cut_video(folder / 'h264.mp4', folder / name, start)
        made[name] = list(range(first, FRAMES))
    # Matroska has no edit lists: what is before the cut has negative times, and is shown
    cut_video(folder / 'h264.mp4', folder / 'cut.mkv', .6, {'avoid_negative_ts': 'disabled'})
    made['cut.mkv'] = list(range(12, FRAMES))
    small = encode_video(folder / 'small.mp4', FRAMES, first=500, size=(32, 48))
    for name, source in (('two_tracks.mov', 'cut.mp4'), ('two_tracks.mkv', 'h264.mp4')):
        join_tracks(folder / name, small, folder / source)
        made[name] = made[source]
    add_cover(folder / 'cover_first.mp4', folder / 'h264.mp4')
    made['cover_first.mp4'] = made['h264.mp4']
    sound = encode_audio(folder / 'sound.mp4')
    for name in ('sound_first.mp4', 'sound_first.mkv'):
        join_tracks(folder / name, sound, folder / 'h264.mp4', delay=3)
        made[name] = made['h264.mp4']
    for path in (small, sound):
        Path(path).unlink()
    return made


def join_tracks(path: Path, *sources: str | Path, delay: float = 0) -> str:
    """A file that has the tracks of others, copied; the last one is the one that players show, after a delay."""
    packets = []
    with av.open(str(path), 'w') as joined:
        for source in sources:
            with av.open(str(source)) as container:
                stream = container.streams[0]
                copy = joined.add_stream_from_template(stream)
                later = 0
                if source is sources[-1]:
                    copy.disposition = int(av.stream.Disposition.default)
                    later = round(delay / stream.time_base)
                for packet in container.demux(stream):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + later, packet.dts + later
                        packets.append((float(packet.dts * packet.time_base), copy, packet))
        for _, copy, packet in sorted(packets, key=lambda item: item[0]):
            packet.stream = copy
            joined.mux(packet)
    return str(path)


def add_cover(path: Path, source: Path) -> str:
    """A copy of a video, or of sound, that has a cover picture as its first track."""
    with av.open(str(source)) as container, av.open(str(path), 'w') as covered:
        cover = covered.add_stream('mjpeg', rate=1)
        cover.height, cover.width, cover.pix_fmt = 300, 300, 'yuvj420p'
        cover.disposition = int(av.stream.Disposition.attached_pic)  # PyAV 15 takes a number
        stream = container.streams[0]
        copy = covered.add_stream_from_template(stream)
        frame = av.VideoFrame.from_ndarray(painted_frame(1023, 300, 300), format='rgb24')
        covered.mux(cover.encode(frame))
        covered.mux(cover.encode())
        for packet in container.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                covered.mux(packet)
    return str(path)


def change_size(path: Path, *sizes: Sequence[int]) -> str:
    """A transport stream whose frames change their size, 30 painted frames of each."""
    content = b''
    for i, size in enumerate(sizes):
        times = np.arange(30 * i, 30 * i + 30) / 25
        content += Path(encode_video(path.with_suffix('.part.ts'), 30, times, first=30 * i, size=size)).read_bytes()
    path.with_suffix('.part.ts').unlink()
    path.write_bytes(content)
    return str(path)


def join_parts(path: Path, begin: float, *sizes: Sequence[int]) -> str:
    """Two parts one behind the other, each of 60 painted frames in 2.4 seconds.

    Args:
        path (Path): In a transport stream the parts stand as they are; else packets are copied.
        begin (float): When the first frame of the second part is shown, in seconds; 0 if they stand as they are.
        sizes (Sequence[int]): Of the frames of each.
    """
    parts = [encode_video(path.with_suffix(f'.{i}.ts'), 60, first=60 * i, size=size) for i, size in enumerate(sizes)]
    if path.suffix == '.ts':
        path.write_bytes(b''.join(Path(part).read_bytes() for part in parts))
        return str(path)
    with av.open(str(path), 'w') as joined:
        copy, last = None, -1 << 62
        for part, start in zip(parts, (0, begin)):
            with av.open(part) as container:
                stream = container.streams.video[0]
                copy = copy or joined.add_stream_from_template(stream)
                shift = round(start / stream.time_base) - stream.start_time
                for packet in container.demux(stream):
                    if packet.dts is not None:
                        packet.stream, packet.pts = copy, packet.pts + shift
                        # as ffmpeg does: what would be decoded before the part before, is decoded behind it
                        packet.dts = last = max(packet.dts + shift, last)
                        joined.mux(packet)
    return str(path)
