"""What gets through the door to videos, and what is refused there."""
import os
import threading
from pathlib import Path

import pytest

from tests.odd_files import write_odd_files
from tests.videos import encode_video
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import PyAVReader, container_format, open_video_file
from vop_mm.datasets.transforms import ReadClip
from vop_mm.datasets.video_check import check_clip
from vop_mm.search.stills import middle_frame


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    return write_odd_files(tmp_path_factory.mktemp('odd'))


@pytest.mark.parametrize('name, codec, expected', [
    ('a.mp4', 'h264', 'mov'), ('a.mov', 'h264', 'mov'), ('a.3gp', 'mpeg4', 'mov'), ('a.mkv', 'h264', 'matroska'),
    ('a.webm', 'vp9', 'matroska'), ('a.avi', 'mpeg4', 'avi'), ('a.flv', 'h264', 'flv'), ('a.ogv', 'libtheora', 'ogg'),
    ('a.wmv', 'wmv2', 'asf'), ('a.gif', 'gif', 'gif'), ('a.mpg', 'mpeg2video', 'mpeg'), ('a.ts', 'h264', 'mpegts'),
    ('a.m2ts', 'h264', 'mpegts')])
def test_containers_are_known_by_content(tmp_path, name, codec, expected):
    if codec == 'libtheora':  # no encoder for it here
        (tmp_path / name).write_bytes(b'OggS\0\2' + bytes(100))
    else:
        encode_video(tmp_path / name, 10, codec=codec, pix_fmt='rgb8' if codec == 'gif' else 'yuv420p')
    (tmp_path / name).rename(tmp_path / 'called')
    with open(tmp_path / 'called', 'rb') as file:
        assert container_format(file) == expected and file.tell() == 0


@pytest.mark.parametrize('start', [b'mdat\0\0\2\x9a\x65', b'mdat\xff\xd8\xff\xe0\0\x10JFIF', b'moov\0\0\0\x6cmvhd'])
def test_a_first_box_may_be_large(tmp_path, start):
    (tmp_path / 'a').write_bytes(b'!<? ' + start + b'x' * 100)  # a size of 0.5 GB that could be text
    with open(tmp_path / 'a', 'rb') as file:
        assert container_format(file) == 'mov'


@pytest.mark.parametrize('fragmented, faststart', [(True, False), (False, True)])
def test_mp4_of_every_order(tmp_path, fragmented, faststart):
    path = encode_video(tmp_path / 'a.mp4', 10, fragmented=fragmented, faststart=faststart)
    assert open_video_file(path).format == 'mov'


USES = {
    'training': lambda path: ReadClip()(dict(filename=path)),
    'check': lambda path: raise_problem(check_clip(ReadClip(), dict(filename=path))),
    'pages': lambda path: middle_frame(path, 0, 1),
}


def raise_problem(row):
    if row['problem']:
        raise VideoDecodeError('a', row['detail'])


@pytest.mark.parametrize('use', USES)
def test_playlists_scripts_and_texts_are_refused_before_ffmpeg_sees_them(odd, use):
    paths, secret = odd
    for kind, path in paths.items():
        with pytest.raises(VideoDecodeError) as error:
            USES[use](path)
        reason = error.value.reason
        expected = 'damaged, truncated' if kind == 'hls_in_packets' else 'not a video of a known container'
        assert expected in reason and secret not in reason and '\n' not in reason, (kind, reason)


def test_what_can_not_be_opened_is_said_at_once(tmp_path):
    os.mkfifo(tmp_path / 'a.mp4')
    (tmp_path / 'b.mp4').mkdir()
    (tmp_path / 'c.mp4').touch()
    (tmp_path / 'd.mp4').symlink_to('/dev/zero')
    (tmp_path / 'e.mp4').symlink_to('e.mp4')
    said = {}
    for name in ('a.mp4', 'b.mp4', 'c.mp4', 'd.mp4', 'e.mp4', 'none.mp4', 'a\0.mp4', 'x' * 300, 'c.mp4/f.mp4'):
        def use(name=name):
            with pytest.raises(VideoDecodeError) as error:
                PyAVReader(os.path.join(tmp_path, name))
            said[name] = error.value.reason
        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        thread.join(10)
    assert list(said.values()) == ['not a regular file', 'no such file', 'the file is empty', 'not a regular file',
                                   'Too many levels of symbolic links', 'no such file', 'the name contains a NUL byte',
                                   'File name too long', 'no such file']


@pytest.mark.parametrize('name', [
    '2026-05-01T10:11:12.mp4', '-i.mp4', 'concat:a|b.mp4', 'file:a.mp4', 'pipe:0', 'http:', '%d.png', 'a%03d.jpg',
    'no extension', 'a.m3u8', 'müde – 走.mp4', b'\xc4\xe3.mp4'])
def test_a_name_is_a_name(tmp_path, monkeypatch, name):
    """Not a protocol, an option, a pattern of names or a kind of file, nor text."""
    name = os.fsdecode(name)
    monkeypatch.chdir(tmp_path)
    encode_video('a.mp4', 7)
    Path('a.mp4').rename(name)
    for i in range(3):
        Path(f'{i}.png').write_bytes(b'no image')
        Path(f'a{i:03}.jpg').write_bytes(b'no image')
    assert ReadClip()(dict(filename=name))['total_frames'] == 7
    assert not check_clip(ReadClip(num_frames=7), dict(filename=name))['problem']


def test_a_file_is_opened_once(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 7)
    with open_video_file(path) as video:
        encode_video(tmp_path / 'b.mp4', 9)
        (tmp_path / 'b.mp4').replace(path)
        assert len(PyAVReader(video.name)) == 7
    assert len(PyAVReader(path)) == 9
