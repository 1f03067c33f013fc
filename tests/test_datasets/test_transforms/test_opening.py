import mmaction.datasets.transforms  # noqa: F401
import numpy as np
import pytest

from tests.test_datasets.test_decoding.torchcodec_process import run_with_torchcodec
from tests.videos import broken_videos, cut_video, encode_video, read_index
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import DecordReader
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


# -- what decord must not open ----------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def unfit(tmp_path_factory):
    """Files by what is said of them; the first three are torchcodec's."""
    folder = tmp_path_factory.mktemp('unfit')
    cut = cut_video(encode_video(folder / 'whole.mp4', 60), folder / 'cut.mp4', 0.6)
    return {'edit list': cut, 'Windows Media': encode_video(folder / 'a.wmv', 60, codec='wmv2'),
            'shown before it': encode_video(folder / 'open.mp4', 60, size=(120, 160), open_gop=True),
            'transport stream': encode_video(folder / 'a.ts', 60),
            'program stream': encode_video(folder / 'a.mpg', 60, codec='mpeg2video')}


def test_is_refused_untouched_where_torchcodec_is_missing(unfit, monkeypatch):
    monkeypatch.setattr('vop_mm.datasets.transforms.opening.torchcodec_problem', lambda: 'it is not there')
    monkeypatch.setattr(DecordReader, '_open', lambda *args: pytest.fail('decord got the file'))
    for i, (says, path) in enumerate(unfit.items()):
        with pytest.raises(VideoDecodeError, match=says) as error:
            OpenVideo()(dict(filename=path))
        assert error.value.reason.endswith('torchcodec might read it, but it is not there' if i < 3 else 'to mp4')


def test_goes_to_torchcodec_where_it_is_there(unfit, tmp_path):
    code = """
import numpy as np
from mmengine.dataset import Compose
from tests.videos import read_index
from vop_mm.datasets import VideoDecodeError
from vop_mm.registry import TRANSFORMS
from vop_mm.utils import register_all_modules

register_all_modules()
result = []
for opening in ('OpenVideo', 'OpenVideoTorchCodec'):
    steps = [dict(type=opening), dict(type='SampleSegments', num_frames=6), dict(type='mmaction.DecordDecode')]
    pipeline = TRANSFORMS.build(dict(type='IsolatedDecode', transforms=steps))
    for path in argument:
        try:
            results = pipeline(dict(filename=path, start=0.2, end=1.4))
            result.append([read_index(frame) for frame in results['imgs']])
        except VideoDecodeError as e:
            result.append(e.reason)
"""
    whole = encode_video(tmp_path / 'whole.mp4', 60)
    found = run_with_torchcodec(code, [whole, *unfit.values()], tmp_path)
    frames = [7, 12, 17, 22, 27, 32]  # of 5 to 34
    expected = [frames, [i + 15 for i in frames], frames, frames]
    for answers in (found[:6], found[6:]):
        assert answers[:4] == expected
        assert 'transport stream' in answers[4] and 'program stream' in answers[5]
