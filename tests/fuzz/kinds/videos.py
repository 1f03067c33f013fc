"""Videos: containers with damaged bytes and tables, playlists under other names, and things that are no files."""
import os
import random
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import torch

from tests.videos import encode_video, painted_frame, read_index
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import DecodeProcess, PyAVReader
from vop_mm.search.clip_loader import ClipLoader

from ..harness import Case, Kind, WrongResult
from ..mutate import mutate_bytes
from ..world import World

_BASES = {
    'h264.mp4': {}, 'faststart.mp4': dict(faststart=True, max_b_frames=0), 'fragmented.mp4': dict(fragmented=True),
    'h264.mkv': {}, 'vp8.webm': dict(codec='libvpx'), 'mpeg4.mp4': dict(codec='mpeg4'), 'h264.mov': {},
    'mpeg4.avi': dict(codec='mpeg4'), 'h264.ts': {}, 'flv.flv': dict(codec='flv'),
    'mpeg2.mpg': dict(codec='mpeg2video'), 'vp9.webm': dict(codec='libvpx-vp9'),
    'gif.gif': dict(codec='gif', pix_fmt='rgb8'), 'hevc.mp4': dict(codec='hevc'),
}
_FRAMES, _FPS = 30, 25
_COUNTED = ('damaged files', 'files read', 'files refused', 'deaths', 'hangs', 'frames right', 'frames refused',
            'frames unreadable', 'frames wrong by the file', 'frames wrong by the reader')
_BOXES = (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'edts', b'moof', b'traf')
_TABLES = (b'stts', b'ctts', b'stss', b'stsz', b'stsc', b'stco', b'elst', b'mdhd', b'mvhd', b'tkhd', b'stsd', b'trun',
           b'tfhd', b'tfdt', b'hdlr')


def prepare(world: World) -> None:
    world.bases = {}
    for name, options in _BASES.items():
        path = world.good / name
        try:
            encode_video(path, _FRAMES, fps=_FPS, **options)
        except Exception:  # this build of FFmpeg has no such encoder
            path.unlink(missing_ok=True)
        else:
            world.bases[name] = path.read_bytes()
    world.loader = ClipLoader(world.cfg, timeout=5.)
    world.looker = DecodeProcess(_look, timeout=10.)


def make(rng: random.Random, world: World, folder: Path) -> Case:
    kind = rng.choice(('bytes', 'bytes', 'bytes', 'boxes', 'boxes', 'playlist', 'playlist', 'other', 'name'))
    name = rng.choice(list(world.bases))
    content, suffix = world.bases[name], Path(name).suffix
    if kind == 'boxes':
        name = rng.choice([other for other in world.bases if other.endswith(('.mp4', '.mov'))])
        content, suffix = world.bases[name], Path(name).suffix
        content, about = _boxes(rng, content)
    elif kind == 'bytes':
        content, about = mutate_bytes(rng, content)
    elif kind == 'playlist':
        content, about = _playlist(rng, world, folder)
        suffix = rng.choice(('.mp4', '.mkv', '.webm', '.m3u8', '.avi', '.mov', '.ts', '.mpd', '.sdp', '.txt', ''))
        name = ''
    elif kind == 'name':
        suffix, about = rng.choice(('.mp4', '.mkv', '.avi', '.ts', '.gif', '.m3u8', '.h264', '', '.%03d.mp4')), 'suffix'
    else:
        return _no_file(rng, world, folder)
    path = folder / f'clip{suffix}'
    path.write_bytes(content)
    clips = rng.choice(((None, ), (None, ), ((0., .5), (.5, 1.)), ((.2, .3), ), ((0., 1e18), )))
    return Case(f'{kind} {name}{suffix}: {about}; {clips}', (path.name, ),
                dict(file=path.name, clips=clips, damaged=kind in ('bytes', 'boxes')))


def _boxes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Sizes, values in tables, order and names of an mp4's boxes."""
    boxes = list(_walk(content))
    kind, data = rng.choice(('size', 'value', 'value', 'value', 'order', 'gone', 'twice')), bytearray(content)
    tables = [box for box in boxes if box[0] in _TABLES]
    box, start, size = rng.choice(tables if kind == 'value' else boxes)
    if kind == 'size':
        value = rng.choice((0, 1, 7, 8, size - 4, size + 8, 2 * size, 2**31 - 1, 2**32 - 1)) % 2**32
        struct.pack_into('>I', data, start, value)
    elif kind == 'value':
        place = min(start + 8 + 4 * rng.randrange(max(1, (size - 8) // 4)), start + size - 4)
        value = rng.choice((0, 1, 2, 255, 65535, 2**31 - 1, 2**32 - 1, rng.randrange(2**32)))
        struct.pack_into('>I', data, place, value)
    elif kind == 'order':
        _, other, length = rng.choice(boxes)
        (a, n), (b, m) = sorted([(start, size), (other, length)])
        if a + n <= b:
            data = content[:a] + content[b:b + m] + content[a + n:b] + content[a:a + n] + content[b + m:]
    elif kind == 'gone':
        data[start + 4:start + 8] = rng.choice((b'free', b'skip', b'xxxx', b'uuid'))
    else:
        data[start:start] = data[start:start + size] * rng.choice((1, 20))
    return bytes(data), f'{kind} of {box.decode()}'


def _walk(content: bytes, start: int = 0, stop: int | None = None):
    stop = len(content) if stop is None else stop
    while start + 8 <= stop:
        size, kind = struct.unpack_from('>I4s', content, start)
        if size < 8 or start + size > stop:
            return
        yield kind, start, size
        if kind in _BOXES:
            yield from _walk(content, start + 8, start + size)
        start += size


def _playlist(rng: random.Random, world: World, folder: Path) -> tuple[bytes, str]:
    """Text that makes FFmpeg open something else, or work without end."""
    secret, port = world.canary / 'secret.ts', world.canaries.port
    named = rng.choice((f'file://{secret}', str(secret), f'file:{secret}', f'http://127.0.0.1:{port}/x.ts',
                        f'tcp://127.0.0.1:{port}', f'concat:{secret}', f'crypto:{secret}',
                        f'subfile,,start,0,end,9,,:{secret}', '../canary/secret.ts',
                        f'data:text/plain;base64,{"A" * 40}', 'pipe:0', f'async:{secret}'))
    kind = rng.choice(('hls', 'hls', 'concat', 'concat', 'dash', 'sdp', 'smil', 'mov ref', 'xspf', 'key', 'hls endless',
                       'lavfi', 'ffmeta', 'concat script', 'subtitles', 'imf'))
    head = '#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n'
    text = {
        'hls': f'{head}#EXTINF:1.2,\n{named}\n#EXT-X-ENDLIST\n',
        'hls endless': f'{head}#EXTINF:1.2,\n{named}\n',
        'key': f'{head}#EXT-X-KEY:METHOD=AES-128,URI="{named}"\n#EXTINF:1.2,\n{secret}\n#EXT-X-ENDLIST\n',
        'concat': f'ffconcat version 1.0\nfile {named}\n',
        'concat script': f"ffconcat version 1.0\nfile '{named}'\nduration 1e9\n"
                         'option protocol_whitelist file,http,tcp\n',
        'dash': '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
                f'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
                f'bandwidth="1"><BaseURL>{named}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        'sdp': f'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n'
               'a=rtpmap:96 H264/90000\n',
        'smil': f'<smil><body><video src="{named}"/></body></smil>',
        'mov ref': f'[Reference]\nRef1={named}\n',
        'xspf': f'<playlist><trackList><track><location>{named}</location></track></trackList></playlist>',
        'lavfi': f"movie='{secret}'",
        'ffmeta': f';FFMETADATA1\ntitle={named}\n',
        'subtitles': f'1\n00:00:00,000 --> 00:00:09,000\n{named}\n',
        'imf': f'<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">{named}'
               '</CompositionPlaylist>',
    }[kind]
    content = text.encode()
    how = rng.choice(('', '', 'bom', 'padded', 'after mp4 head'))
    if how == 'bom':
        content = b'\xef\xbb\xbf' + content
    elif how == 'padded':
        content += b'\n' * 5000
    elif how == 'after mp4 head':
        content = b'\0\0\0\x18ftypisom\0\0\0\0isommp42' + content
    return content, f'{kind} {named} {how}'


def _no_file(rng: random.Random, world: World, folder: Path) -> Case:
    kind = rng.choice(('fifo', 'folder', 'link', 'missing', 'url', 'protocol', 'device', 'text', 'image', 'nul',
                       'archive'))
    path = folder / 'clip.mp4'
    name = str(path)
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'link':
        path.symlink_to(folder / 'clip.mp4')
    elif kind == 'url':
        name = f'http://127.0.0.1:{world.canaries.port}/clip.mp4'
    elif kind == 'protocol':
        secret = world.canary / 'secret.mp4'
        name = rng.choice((f'file:{secret}', f'concat:{secret}', f'cache:{secret}',
                           f'subfile,,start,0,end,0,,:{secret}', 'pipe:0', f'async:{secret}',
                           f'tee:{secret}', f'crypto:{secret}'))
    elif kind == 'device':
        name = rng.choice(('/dev/zero', '/dev/stdin', '/dev/urandom', '/proc/self/mem'))
    elif kind == 'image':
        from PIL import Image
        Image.new('RGB', (8, 8)).save(path, rng.choice(('png', 'jpeg', 'gif', 'bmp', 'webp')))
    elif kind == 'archive':
        path.write_bytes(b'PK\x03\x04' + rng.randbytes(500))
    elif kind == 'text':
        path.write_text('<html>404 Not Found</html>' * 50)
    elif kind == 'nul':
        name = 'a\0b.mp4'
    return Case(f'{kind} {name}', (path.name, name, ascii(name)[1:-1]), dict(file=name, clips=(None, )))


def target(world: World, folder: Path, case: Case) -> None:
    path, clips = case.options['file'], case.options['clips']
    path = str(folder / path) if os.sep not in path and ':' not in path and '\0' not in path else path
    duration = _look_at(world, path, clips) if case.options.get('damaged') else world.loader.duration(path)
    if not 0 <= duration < 1e7:
        raise WrongResult(f'{duration} s long')
    found = [clip for clip in world.loader.load_clips(path, clips) if not isinstance(clip, VideoDecodeError)]
    if not found:
        raise VideoDecodeError(path, 'no clip of it')
    frames, real = torch.stack([frames for frames, _ in found]), [real for _, real in found]
    if frames.dtype != torch.uint8 or frames.shape[1:] != (12, 3, 40, 40):
        raise WrongResult(f'frames {frames.dtype} {tuple(frames.shape)}')
    if not all(0 < count <= 12 for count in real):
        raise WrongResult(f'numbers of frames {real}')


# -- whether frames of damaged files are the ones that were asked for --------------------------------------------------
def _look_at(world: World, path: str, clips: tuple) -> float:
    """Count what becomes of a damaged file and its frames; its duration."""
    world.counts.update(dict.fromkeys(_COUNTED, 0))
    world.counts['damaged files'] += 1
    try:
        duration = world.loader.duration(path)
        found = world.looker.call(path, path, {None, *clips})
    except VideoDecodeError as e:
        ends = {'the decoder crashed': 'deaths', 'the decoder timed out': 'hangs'}
        world.counts[next((name for said, name in ends.items() if said in e.reason), 'files refused')] += 1
        raise
    world.counts.update(found)
    if found['frames wrong by the reader']:
        raise WrongResult(f'{found["frames wrong by the reader"]} frames are others than those asked for')
    return duration


def _look(path: str, clips: Iterable[tuple[float, float] | None]) -> Counter:
    """What is painted in the frames that the reader hands out, by what should be.

    A frame with another index is the reader's fault if FFmpeg, reading the damaged file in order, shows the right one
    there; else the file says so, or its pictures are damaged and the decoder did not notice.
    """
    counts, shown = Counter({'files read': 1}), None
    for start, end in (clip or (None, None) for clip in clips):
        try:
            reader = PyAVReader(path, start=start, end=end)
        except VideoDecodeError:  # the clip begins behind the end
            continue
        order = np.random.default_rng(0).permutation(min(len(reader), 2 * _FRAMES)).tolist()
        for i, image in zip(order, _frames(reader, order)):
            found = None if image is None else _painted(image)
            wanted = i if start is None else round(reader.timestamps()[i] * _FPS)
            if image is None or found in (wanted, None):
                verdict = 'refused' if image is None else 'unreadable' if found is None else 'right'
                counts[f'frames {verdict}'] += 1
                continue
            shown = _in_order(reader) if shown is None else shown
            place = reader._index.offset + i if reader._index.counted else int(reader._index.times[i])
            fault = wanted in shown[reader._index.counted].get(place, ())
            counts['frames wrong by the reader' if fault else 'frames wrong by the file'] += 1
    return counts


def _frames(reader: PyAVReader, order: list[int]) -> Iterable[np.ndarray | None]:
    """Frames in an order; None: refused."""
    try:
        return reader.get_batch(order).asnumpy()
    except VideoDecodeError:
        return [None] if len(order) == 1 else [image for i in order for image in _frames(reader, [i])]


def _in_order(reader: PyAVReader) -> tuple[dict, dict]:
    """What is painted in the frames that FFmpeg shows without seeking, by their times and by their numbers."""
    by_time, by_number = {}, {}
    reader._open_container()
    for packet in reader._container.demux(reader._stream):
        with suppress(av.error.FFmpegError, ValueError):  # a damaged frame; the next may be fine
            for frame in packet.decode():
                found = _painted(frame.to_ndarray(format='rgb24'))
                by_number[len(by_number)] = (found, )
                by_time.setdefault(frame.pts, set()).add(found)
    return by_time, by_number


def _painted(frame: np.ndarray) -> int | None:
    """The index that a frame carries; None: it is too damaged to tell."""
    index = read_index(frame)
    plain = painted_frame(index, *frame.shape[:2])
    return index if index < _FRAMES and np.abs(frame.astype(int) - plain).mean() < 25 else None


KINDS = [Kind('video', make, target, prepare, seconds=40, memory=3 << 30)]
