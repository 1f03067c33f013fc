"""What is said of a video without decoding it."""
import os
from fractions import Fraction
from pathlib import Path

import pytest

from tests.test_datasets.test_decoding.test_pyav_reader import set_matrix
from tests.video_kinds import TIMES, join_tracks
from tests.videos import broken_videos, encode_video
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import VideoInfo, probe


@pytest.mark.parametrize('name, codec, options', [
    ('a.mp4', 'h264', {}), ('a.mkv', 'hevc', {}), ('a.webm', 'vp9', {}), ('a.avi', 'mpeg4', {}), ('a.ts', 'h264', {}),
    ('a.mpg', 'mpeg2video', {}), ('a.avi', 'h264', {})])
def test_a_video(tmp_path, name, codec, options):
    path = encode_video(tmp_path / name, 50, codec=codec, **options)
    info = probe(path)
    assert info == VideoInfo(info.seconds, 50, info.fps, 48, 80, os.path.getsize(path), codec, 0, [])
    assert info.seconds == pytest.approx(2, abs=2e-3) and info.fps == pytest.approx(25, rel=2e-3)


def test_a_variable_frame_rate(tmp_path):
    info = probe(encode_video(tmp_path / 'a.mp4', len(TIMES), times=TIMES))
    assert info.frames == len(TIMES) and TIMES[-1] < info.seconds < TIMES[-1] + .51


def test_the_size_is_the_one_that_is_shown(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 5, size=(48, 80), aspect=Fraction(3, 2))
    assert (probe(path).height, probe(path).width) == (48, 120)
    set_matrix(path, 0, 1, -1, 0)
    assert (probe(path).height, probe(path).width) == (120, 48)


def test_notes(tmp_path):
    first, second = encode_video(tmp_path / 'a.mp4', 9), encode_video(tmp_path / 'b.mp4', 7, transfer=16)
    assert probe(join_tracks(tmp_path / 'c.mov', first, second)).notes == [
        '2 video tracks: the 2nd is read (80x48)', 'HDR (PQ): tone mapped to SDR']


def test_a_file_whose_end_is_missing(tmp_path):
    path = encode_video(tmp_path / 'a.mkv', 100, size=(96, 160))
    assert probe(path).notes == []
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:len(content) // 3])
    note, = probe(path).notes
    assert note.startswith('cut off: the file says 4.00 s, its video ends at ')


def test_a_still_of_one_frame_is_shown_for_a_while(tmp_path):
    assert probe(encode_video(tmp_path / 'a.mp4', 1)).seconds == pytest.approx(.04)


@pytest.mark.parametrize('kind', ['truncated', 'truncated_faststart', 'garbage', 'empty', 'audio_only'])
def test_what_is_no_video(tmp_path, kind):
    with pytest.raises(VideoDecodeError) as error:
        probe(broken_videos(tmp_path)[kind])
    assert error.value.path.endswith(f'{kind}.mp4')
