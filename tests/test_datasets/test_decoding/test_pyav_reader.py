"""Exactly the frames that were asked for, of every kind of video, by what is painted in them."""
import os
import re
import shutil
import struct
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.tools import ROOT
from tests.video_kinds import FRAMES, NAMES, TIMES, add_cover, change_size, join_parts, make_kinds
from tests.videos import broken_videos, encode_audio, encode_video, read_index, spoil_frames
from tools.analysis_tools.benchmarks._clips import repeat_clip
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import PyAVReader
from vop_mm.datasets.transforms import sample_frames
from vop_mm.registry import READERS

BROKEN = {'truncated': 'damaged', 'truncated_faststart': 'damaged', 'garbage': 'not a video', 'text': 'not a video',
          'empty': 'file is empty', 'audio_only': 'no video stream'}
COUNTED = {'h264.avi', 'late.asf', 'mpeg4_b.avi', 'mpeg2.mpg', 'mpeg2.vob', 'cut.mkv'}  # without times of frames


@pytest.fixture(scope='module')
def kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kinds')
    return folder, make_kinds(folder)


@pytest.fixture(params=NAMES)
def kind(request, kinds):
    """Path and painted indices of a video."""
    folder, made = kinds
    if request.param not in made:
        pytest.skip('this FFmpeg has no encoder for it')
    return str(folder / request.param), made[request.param]


def read(reader, indices) -> list[int]:
    return [read_index(frame) for frame in reader.get_batch(indices).asnumpy()]


def reason(call, *args, **kwargs) -> str:
    with pytest.raises(VideoDecodeError) as error:
        call(*args, **kwargs)
    assert '\n' not in str(error.value)
    return error.value.reason


def test_uniform_frames_and_all_in_a_random_order(kind):
    path, truth = kind
    reader = PyAVReader(path)
    assert len(reader) == len(truth)
    uniform = sample_frames(len(truth), 12)
    assert read(reader, uniform) == [truth[i] for i in uniform]
    order = [*np.random.default_rng(0).permutation(len(truth)), 0, 0, len(truth) - 1]
    assert read(reader, order) == [truth[i] for i in order]
    for i in order[:5]:  # one at a time
        assert read(PyAVReader(path), [i]) == [truth[i]]


def test_times_are_those_of_the_file(kind):
    path, truth = kind
    reader = PyAVReader(path)
    times = reader.timestamps()
    expected = TIMES if 'vfr' in path else np.arange(len(truth)) / 25
    assert times.dtype == np.float64 and times[0] == 0
    np.testing.assert_allclose(times, expected, atol=2e-3)
    assert reader.get_avg_fps() == pytest.approx(len(truth) / reader.duration)
    if 'vfr' not in path:
        assert reader.duration == pytest.approx(len(truth) / 25, abs=2e-3)
        assert reader.get_avg_fps() == pytest.approx(25, rel=.01)


def test_windows(kind):
    path, truth = kind
    whole = PyAVReader(path)
    duration = whole.duration
    rng = np.random.default_rng(1)
    check_windows(path, truth, [(0, duration / 3), (duration / 2, None), (None, duration / 2),
                                (duration * .9, duration + 100), (whole.timestamps()[-1], None),
                                *np.sort(rng.uniform(0, duration, (5, 2))).tolist()])


def check_windows(path: str, truth: Sequence[int], windows: Sequence[tuple[float | None, float | None]]) -> None:
    whole = PyAVReader(path)
    times, duration = whole.timestamps(), whole.duration
    for start, end in windows:
        reader = PyAVReader(path, start=start, end=end)
        begin, stop = (start or 0) - 5e-4, np.inf if end is None else end - 5e-4
        inside = np.flatnonzero((times >= begin) & (times < stop)).tolist()
        if not inside or times[inside[0]] > (start or 0) + 5e-4:
            inside.insert(0, np.flatnonzero(times < begin)[-1])
        np.testing.assert_allclose(reader.timestamps(), times[inside], atol=1e-9)
        assert read(reader, range(len(reader))) == [truth[i] for i in inside], (start, end)
        behind = inside[-1] + 1
        assert reader.duration == pytest.approx(times[behind] if behind < len(times) else duration, abs=2e-3)


@pytest.mark.parametrize('name, begin, size', [
    ('two_frames.mkv', 2.32, (72, 120)), ('half_a_frame.mkv', 2.34, (48, 80)), ('two_frames.flv', 2.32, (48, 80)),
    ('all.ts', 0, (48, 80))])
def test_joined_parts_that_overlap_in_time(tmp_path, name, begin, size):
    """Frames are shown in the order of the file, in windows, too, wherever seeking would find one of the parts."""
    path = join_parts(tmp_path / name, begin, (48, 80), size)
    order = np.random.default_rng(0).permutation(120).tolist()
    assert read(PyAVReader(path), order) == order
    assert [read(PyAVReader(path), [i]) for i in (57, 58, 59, 60, 61, 62)] == [[57], [58], [59], [60], [61], [62]]
    check_windows(path, range(120), [(start, end) for start in np.arange(1, 2.37, .04) for end in (None, start + .5)])


def test_which_files_are_counted(kinds):
    """What else is read by its times, which is quicker; this does not say that counting is wrong."""
    folder, made = kinds
    assert {name for name in made if PyAVReader(str(folder / name)).seek_problem == 'frames that have no times'
            } == COUNTED


def test_a_clip_behind_the_end(kinds):
    path = str(kinds[0] / 'h264.mp4')
    for start, end in ((5, None), (5., 9.)):
        assert reason(PyAVReader, path, start=start, end=end) == 'the clip starts at 5 s, the video ends at 2.4 s'


def test_a_still_that_is_shown_for_long_is_in_its_window(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 100, times=[0, *(44 + np.arange(99) / 25)])
    reader = PyAVReader(path, start=15, end=45)
    assert read(reader, [0, 1, len(reader) - 1]) == [0, 1, 25] and reader.timestamps()[:2].tolist() == [0, 44]


def test_a_window_opens_quickly(tmp_path):
    """Of a long video, here 33 minutes, only the packets of the window are read."""
    path = repeat_clip(encode_video(tmp_path / 'short.mp4', 50, max_b_frames=0), str(tmp_path / 'long.mp4'), 1000)
    whole, part = [], []
    for _ in range(3):
        start = time.perf_counter()
        count = len(PyAVReader(path))
        whole.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert len(PyAVReader(path, start=1000, end=1010)) == 250
        part.append(time.perf_counter() - start)
    assert count == 50_000 and min(part) < min(whole) / 2


# -- which track, which size ------------------------------------------------------------------------------------------
def test_the_best_track_is_read_and_said(kinds):
    folder, _ = kinds
    assert PyAVReader(str(folder / 'two_tracks.mov')).notes == ['2 video tracks: the 2nd is read (80x48)']
    assert PyAVReader(str(folder / 'cover_first.mp4')).notes == []


def test_a_song_with_a_cover_is_no_video(tmp_path):
    song = add_cover(tmp_path / 'song.mp4', encode_audio(tmp_path / 'a.mp4'))
    assert reason(PyAVReader, song) == 'no video stream'


@pytest.mark.parametrize('size', [(16, 16), (24, 32), (36, 48), (57, 71)])
def test_small_and_odd_sizes(tmp_path, size):
    frames = [np.full((*size, 3), 10 + 8 * i, np.uint8) for i in range(30)]
    reader = PyAVReader(encode_video(tmp_path / 'a.mp4', frames, pix_fmt='yuv444p'))
    order = np.random.default_rng(0).permutation(30)
    found = reader.get_batch(order).asnumpy()
    assert found.shape == (30, *size, 3)
    np.testing.assert_allclose(found.mean((1, 2, 3)), 10 + 8 * order, atol=2)


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path):
    reader = PyAVReader(change_size(tmp_path / 'a.ts', (48, 80), (72, 120)))
    order = np.random.default_rng(0).permutation(60)
    frames = reader.get_batch(order).asnumpy()
    assert frames.shape == (60, 48, 80, 3) and [read_index(frame) for frame in frames] == order.tolist()


def test_threads_give_the_same_frames(kinds):
    for name in ('h264_open.mp4', 'hevc.mp4', 'vp9.webm', 'h264.avi'):
        order = np.random.default_rng(2).permutation(FRAMES)
        assert read(PyAVReader(str(kinds[0] / name), num_threads=3), order) == order.tolist()


# -- names ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', [b'\xc4\xe3\xba\xc3.mp4', b'12:30:01.mp4', b'-i.mp4', b'x' * 251 + b'.mp4', b'%03d',
                                  b'concat:a|b', b'a\nb'])
def test_any_name(kinds, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(kinds[0] / 'h264.mp4', os.fsdecode(name))
    assert read(PyAVReader(os.fsdecode(name)), [30, 7]) == [30, 7]


# -- damage -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', BROKEN)
def test_broken_files_are_errors_of_one_line(tmp_path, kind):
    assert BROKEN[kind] in reason(PyAVReader, broken_videos(tmp_path)[kind])


def test_a_damaged_part_costs_its_frames_only(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 96, size=(96, 160), max_b_frames=0, options={'x264-params': 'scenecut=0'})
    first, behind = 38, 48  # of groups of 12 pictures
    spoil_frames(path, slice(first, first + 3))
    reader = PyAVReader(path)
    fine = [*range(first), *range(behind, 96)]
    assert read(reader, fine) == fine
    said = reason(reader.get_batch, [5, first + 1, behind - 1, behind])
    assert said.startswith(f'2 of the frames asked for ({first + 1}, {behind - 1}) are damaged: ')
    assert read(PyAVReader(path, start=behind / 25), range(10)) == list(range(behind, behind + 10))


def test_indices_are_checked(kinds):
    reader = PyAVReader(str(kinds[0] / 'short5.mp4'))
    for indices in ([-1], [0, 5], [], [[0, 1]]):
        assert 'the video has 5' in reason(reader.get_batch, indices)


def test_nothing_is_left_open(kinds):
    before = len(os.listdir('/proc/self/fd'))
    for name in ('h264.mp4', 'h264.avi', 'vp9.webm'):
        reader = PyAVReader(str(kinds[0] / name))
        reader.get_batch([3])
        reader.close()
    assert len(os.listdir('/proc/self/fd')) == before


def test_ffmpeg_says_nothing(tmp_path, capfd):
    paths = broken_videos(tmp_path)
    for path in paths.values():
        reason(PyAVReader, path)
    assert capfd.readouterr() == ('', '')


def test_is_registered_and_alone_knows_pyav():
    assert READERS.get('PyAVReader') is PyAVReader
    sources = (ROOT / 'vop_mm').rglob('*.py')
    assert [path.name for path in sources if re.search(r'\b(import|from) av\b', path.read_text())] == ['pyav_reader.py']


# -- how it is shown --------------------------------------------------------------------------------------------------
ONE = 1 << 16
MATRICES = {  # a, b, c, d: (x, y) is shown at (a x + c y, b x + d y); and what numpy does to the picture
    'as it is': ((1, 0, 0, 1), lambda image: image),
    'turned right': ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    'turned by half': ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    'turned left': ((0, -1, 1, 0), lambda image: np.rot90(image)),
    'mirrored': ((-1, 0, 0, 1), np.fliplr),
    'upside down': ((1, 0, 0, -1), np.flipud),
    'transposed': ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    'transposed the other way': ((0, -1, -1, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
}


def set_matrix(path: str, a: int, b: int, c: int, d: int) -> str:
    content = bytearray(Path(path).read_bytes())
    place = content.index(b'tkhd') + 4 + 40
    struct.pack_into('>9i', content, place, a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    Path(path).write_bytes(content)
    return path


def quarters() -> np.ndarray:
    """A picture whose four corners differ."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48], image[32:, 48:] = 30, 90, 160, 230
    return image


@pytest.mark.parametrize('name', MATRICES)
def test_display_matrices(tmp_path, name):
    matrix, change = MATRICES[name]
    path = set_matrix(encode_video(tmp_path / 'a.mp4', [quarters()] * 3), *matrix)
    frame, expected = PyAVReader(path).get_batch([1]).asnumpy()[0], change(quarters())
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 3


def test_pixels_that_are_not_square(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 10, aspect=Fraction(64, 45), size=(576 // 8, 720 // 8))
    frames = PyAVReader(path).get_batch([7, 3]).asnumpy()
    assert frames.shape == (2, 72, 128, 3) and [read_index(frame) for frame in frames] == [7, 3]


@pytest.mark.parametrize('pix_fmt', ['yuv420p', 'yuvj420p', 'yuv444p', 'yuv420p10le'])
def test_gray_stays_gray_in_every_range(tmp_path, pix_fmt):
    ramp = np.broadcast_to(np.linspace(0, 255, 128)[None, :, None], (64, 128, 3)).astype(np.uint8)
    frame = PyAVReader(encode_video(tmp_path / 'a.mp4', [ramp] * 3, pix_fmt=pix_fmt)).get_batch([1]).asnumpy()[0]
    np.testing.assert_allclose(frame.astype(int), ramp, atol=6)


@pytest.mark.parametrize('matrix', [None, 1, 5, 6, 7, 9])
@pytest.mark.parametrize('pix_fmt', ['yuv444p', 'yuvj444p', 'yuv420p10le'])
def test_colors_are_those_of_the_matrix_that_the_file_names(tmp_path, matrix, pix_fmt):
    colors = [(230, 40, 30), (20, 180, 60), (40, 60, 220), (200, 190, 20), (120, 120, 120)]
    picture = np.repeat(np.repeat(np.uint8([colors]), 64, 0), 16, 1)
    path = encode_video(tmp_path / 'a.mp4', [picture] * 3, pix_fmt=pix_fmt, matrix=matrix)
    found = PyAVReader(path).get_batch([1]).asnumpy()[0][32, 8::16]
    np.testing.assert_allclose(found.astype(int), colors, atol=5)


@pytest.mark.parametrize('place', [3, 20, 40])
def test_a_frame_that_carries_another_time_is_not_handed_out(tmp_path, place):
    """The packets say that there is a frame, and no frame comes with its time."""
    reader = PyAVReader(encode_video(tmp_path / 'a.mp4', 50))
    times = reader._index.times
    missing = (times[place] + times[place + 1]) // 2
    reader._index = replace(reader._index, times=np.insert(times, place + 1, missing))
    with pytest.raises(VideoDecodeError, match=rf'1 of the frames asked for \({place + 1}\) are damaged'):
        reader.get_batch([place, place + 1, place + 2])
    assert [read_index(frame) for frame in reader.get_batch([place, place + 2]).asnumpy()] == [place, place + 1]
