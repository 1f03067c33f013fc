"""What decoders are kept away from. That decord is exact on the others, test_readers.py shows."""
import struct

import av
import numpy as np
import pytest

from tests.videos import broken_videos, cut_video, encode_video
from vop_mm.datasets.decoding import unfit_for_decord, unfit_for_torchcodec

FRAMES = 60


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """An mp4 with B-frames, 25 frames a second, a key frame every 12; its index is at the end."""
    return encode_video(tmp_path_factory.mktemp('whole') / 'whole.mp4', FRAMES)


@pytest.mark.parametrize('name, codec, says', [
    ('a.wmv', 'wmv2', 'Windows Media'), ('a.asf', 'h264', 'Windows Media'), ('a.mpg', 'mpeg2video', 'program stream'),
    ('a.vob', 'mpeg2video', 'program stream'), ('a.ts', 'h264', 'transport stream'),
    ('a.ts', 'mpeg2video', 'transport stream'), ('a.m2ts', 'h264', 'transport stream')])
def test_containers_are_known_by_their_content(tmp_path, name, codec, says):
    path = tmp_path / 'called.mp4'
    encode_video(tmp_path / name, FRAMES, codec=codec)
    (tmp_path / name).rename(path)
    assert says in unfit_for_decord(str(path))
    assert (unfit_for_torchcodec(str(path)) is None) == (says == 'Windows Media')


def test_a_transport_stream_that_begins_within_a_packet(tmp_path):
    path = tmp_path / 'a.ts'
    path.write_bytes(open(encode_video(tmp_path / 'whole.ts', FRAMES), 'rb').read()[100:])
    assert 'transport stream' in unfit_for_decord(str(path))


@pytest.mark.parametrize('name, codec', [('a.mp4', 'h264'), ('a.mov', 'h264'), ('a.3gp', 'mpeg4'), ('a.mkv', 'h264'),
                                         ('a.webm', 'vp9'), ('a.avi', 'mpeg4'), ('a.flv', 'h264')])
def test_ordinary_files_are_left_to_the_decoder(tmp_path, name, codec):
    path = encode_video(tmp_path / name, FRAMES, codec=codec)
    assert unfit_for_decord(path) is None and unfit_for_torchcodec(path) is None


@pytest.mark.parametrize('kind', ['truncated', 'truncated_faststart', 'garbage', 'text', 'empty', 'audio_only'])
def test_broken_files_are_left_to_the_decoder(tmp_path, kind):
    path = broken_videos(tmp_path)[kind]
    assert unfit_for_decord(path) is None and unfit_for_torchcodec(path) is None


def test_a_damaged_index_is_left_to_the_decoder(whole, tmp_path):
    content = open(whole, 'rb').read()
    moov = content.index(b'moov')
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(moov, len(content), 5):
            damaged[place] = rng.integers(256)
        (tmp_path / 'a.mp4').write_bytes(damaged)
        unfit_for_decord(str(tmp_path / 'a.mp4'))


# -- edit lists -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('extension', ['mp4', 'mov'])
@pytest.mark.parametrize('start, hidden', [(0.6, 3), (0.52, 1), (0.48, 0), (0, 0), (-0.5, 0)])
def test_a_cut_that_hides_frames(whole, tmp_path, extension, start, hidden):
    # key frames are 0, 12, 24 ...; a cut at frame 15 stores 12, 13, 14 as well
    path = cut_video(whole, tmp_path / f'cut.{extension}', start)
    reason = unfit_for_decord(path)
    if hidden:
        assert f'hides {hidden} of its 48 frames' in reason
    else:
        assert reason is None
    assert unfit_for_torchcodec(path) is None


def patched(whole, path, entries: list[tuple[int, int]], version: int = 0) -> str:
    """The video with another edit list: (duration in milliseconds, start in ticks) of every part."""
    content = bytearray(open(whole, 'rb').read())
    place = content.index(b'elst')
    old_size, = struct.unpack_from('>I', content, place - 4)
    body = struct.pack('>B3xI', version, len(entries))
    for duration, start in entries:
        body += struct.pack('>QqHH' if version else '>IiHH', duration, start, 1, 0)
    content[place + 4:place - 4 + old_size] = body
    for kind in (b'moov', b'trak', b'edts', b'elst'):  # behind the pictures, so that these keep their places
        outer = content.index(kind) - 4
        size, = struct.unpack_from('>I', content, outer)
        struct.pack_into('>I', content, outer, size + len(body) + 8 - old_size)
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize('version', [0, 1])
@pytest.mark.parametrize('duration, hidden', [(2400, 0), (2361, 0), (2360, 1), (1400, 25)])
def test_an_edit_that_ends_early(whole, tmp_path, version, duration, hidden):
    # with B-frames the first picture is shown after two others are decoded: 1024 ticks of 12800 a second
    path = patched(whole, tmp_path / 'a.mp4', [(500, -1), (duration, 1024)], version)
    assert hidden == 0 if unfit_for_decord(path) is None else f'hides {hidden} of its 60' in unfit_for_decord(path)


def test_an_edit_list_of_several_parts(whole, tmp_path):
    path = patched(whole, tmp_path / 'a.mp4', [(1200, 1024), (1200, 1024 + 15360)])
    assert '2 parts' in unfit_for_decord(path)


# -- open groups of pictures ------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['a.mp4', 'a.mov', 'a.mkv', 'a.flv', 'fragmented.mp4'])
@pytest.mark.parametrize('is_open', [False, True])
def test_pictures_shown_before_the_key_frame_they_are_stored_behind(tmp_path, name, is_open):
    path = encode_video(tmp_path / name, FRAMES, size=(120, 160), open_gop=is_open, fragmented='frag' in name)
    with av.open(path) as container:
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    expected, key = 0, packets[0][0]
    for time, is_key in packets:
        key = time if is_key else key
        expected += time < key
    assert is_open == (expected > 0)
    reason = unfit_for_decord(path)
    assert reason.startswith(f'{expected} frames are stored behind a key frame') if is_open else reason is None
    assert unfit_for_torchcodec(path) is None
