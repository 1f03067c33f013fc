import mmaction.datasets.transforms  # noqa: F401
import numpy as np
import pytest

from tests.videos import broken_videos, encode_video, read_index
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.transforms import OpenVideo, clip_range
from vop_mm.registry import TRANSFORMS


def decode(path, indices) -> list[int]:
    results = OpenVideo()(dict(filename=str(path)))
    results['frame_inds'] = np.asarray(indices)
    return [read_index(frame) for frame in TRANSFORMS.build(dict(type='mmaction.DecordDecode'))(results)['imgs']]


@pytest.mark.parametrize('name, codec', [('a.mp4', 'h264'), ('a.mkv', 'h264'), ('a.webm', 'vp9'),
                                         ('männchen läuft – 走.mp4', 'h264'), ('no_extension', 'h264')])
def test_frames_are_the_ones_asked_for(tmp_path, name, codec):
    path = tmp_path / name
    if '.' in name:
        encode_video(path, 60, codec=codec)
    else:
        path.write_bytes(open(encode_video(tmp_path / 'b.mp4', 60, codec=codec), 'rb').read())
    results = OpenVideo()(dict(filename=str(path)))
    assert (results['total_frames'], results['clip_start'], results['clip_end']) == (60, 0, 60)
    assert results['avg_fps'] == pytest.approx(25, rel=0.05)
    assert decode(path, [0, 59, 7, 7, 30, 13]) == [0, 59, 7, 7, 30, 13]


@pytest.mark.parametrize('frames', [1, 2, 3, 4, 5])
def test_very_short_videos(tmp_path, frames):
    path = encode_video(tmp_path / 'a.mp4', frames)
    assert decode(path, range(frames)) == list(range(frames))


@pytest.fixture(scope='module')
def broken(tmp_path_factory):
    return broken_videos(tmp_path_factory.mktemp('broken'))


@pytest.mark.parametrize('kind, says', [('truncated', 'decord'), ('truncated_faststart', 'damaged or cut off'),
                                        ('garbage', 'not a video'), ('text', 'not a video'), ('empty', 'file is empty'),
                                        ('audio_only', 'no video stream')])
def test_broken_files_are_one_error(broken, kind, says):
    with pytest.raises(VideoDecodeError) as error:
        decode(broken[kind], [0, 50, 99])
    assert error.value.path == broken[kind] and says in error.value.reason
    assert str(error.value) == f"can't decode {broken[kind]}: {error.value.reason}" and '\n' not in str(error.value)


def test_missing_file(tmp_path):
    for path in (tmp_path / 'gone.mp4', tmp_path):
        with pytest.raises(VideoDecodeError, match='no such file'):
            OpenVideo()(dict(filename=str(path)))


@pytest.mark.parametrize('indices', [[-1], [0, 5], [], [[0, 1]]])
def test_indices_are_checked(tmp_path, indices):
    reader = OpenVideo()(dict(filename=encode_video(tmp_path / 'a.mp4', 5)))['video_reader']
    with pytest.raises(VideoDecodeError, match='the video has 5'):
        reader.get_batch(indices)


def test_frames_that_do_not_come_back_are_an_error(tmp_path):
    reader = OpenVideo()(dict(filename=encode_video(tmp_path / 'a.mp4', 5)))['video_reader']

    class Short:

        def get_batch(self, indices):
            return np.zeros((len(indices) - 1, 8, 8, 3), np.uint8)

    reader._reader = Short()
    with pytest.raises(VideoDecodeError, match='3 frames asked for'):
        reader.get_batch([0, 1, 2])


def irregular_times(count: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.2, 0.5], count - 1))])


@pytest.mark.parametrize('start, end', [(0, 2), (1.2, 3.7), (2.5, None), (None, 1.0), (3, 1000)])
@pytest.mark.parametrize('offset', [0, 0.5])
def test_clip_in_seconds_with_a_variable_frame_rate(tmp_path, start, end, offset):
    times = irregular_times(60)
    path = encode_video(tmp_path / 'vfr.mp4', 60, times=times + offset)
    results = OpenVideo()(dict(filename=path, start=start, end=end))
    inside = np.flatnonzero((times >= (start or 0) - 1e-6) & (times < (end or np.inf) - 1e-6))
    assert (results['clip_start'], results['clip_end']) == (inside[0], inside[-1] + 1)


def test_clip_with_a_constant_frame_rate(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 100, fps=25)
    results = OpenVideo()(dict(filename=path, start=1, end=2.0))
    assert (results['clip_start'], results['clip_end']) == (25, 50)


def test_clip_behind_the_end_of_the_video(tmp_path):
    with pytest.raises(VideoDecodeError, match='starts at 5 s, the video ends at 4 s'):
        OpenVideo()(dict(filename=encode_video(tmp_path / 'a.mp4', 100, fps=25), start=5, end=9))


def test_clip_range_never_is_empty():
    times = np.arange(10) / 10
    assert clip_range(times, 0.31, 0.35) == (3, 4)  # between two frames: the one on screen
    assert clip_range(times, 0.95, 0.99) == (9, 10)
    assert clip_range(times, 0, 1e-5) == (0, 1)
    assert clip_range(np.zeros(1), None, 5) == (0, 1)
