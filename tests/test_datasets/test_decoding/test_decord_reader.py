"""decord reads what it is exact on, and says which reader to use for the rest."""
import importlib.util
import sys
import types
from fractions import Fraction

import numpy as np
import pytest

from tests.test_datasets.test_decoding.test_pyav_reader import set_matrix
from tests.video_kinds import make_kinds
from tests.videos import encode_video, read_index
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import DecordReader, PyAVReader, decord_reader
from vop_mm.registry import READERS, TRANSFORMS

pytestmark = pytest.mark.skipif(importlib.util.find_spec('decord') is None, reason='decord has no wheel here')
EXACT = ('h264.mp4', 'h264.mkv', 'h264_10_bit.mp4', 'h264_444.mp4', 'fragmented.mp4', 'faststart.mp4', 'hevc.mp4',
         'vp8.webm', 'vp9.webm', 'delayed.mp4', 'cut_at_key.mp4', 'cover_first.mp4', 'sound_first.mp4', 'vfr.mp4',
         'vfr.mkv', 'männchen läuft – 走 🎬.mp4', 'short1.mp4', 'short2.mp4', 'short5.mp4')
REFUSED = {
    'h264_open.mp4': 'frames that are stored behind a key frame',
    'hevc_open.mkv': 'frames that are stored behind a key frame',
    'mpeg4_b.mkv': 'frames that are stored behind a key frame',
    'cut.mp4': 'decord counts 48 frames where 45 are shown',
    'cut.mkv': 'frames that have no times',
    'two_tracks.mov': 'several tracks',
    'two_tracks.mkv': 'several tracks',
    'h264.ts': 'mpegts files',
    'h264.avi': 'avi files',
    'mpeg2.mpg': 'mpeg files',
    'wmv2.wmv': 'asf files',
    'av1.mp4': 'a codec that decord does not know',
}


@pytest.fixture(scope='module')
def kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kinds')
    return folder, make_kinds(folder)


@pytest.mark.parametrize('name', EXACT)
def test_what_it_reads_is_what_the_other_reads(kinds, name):
    path, truth = str(kinds[0] / name), kinds[1][name]
    by_decord, by_pyav = DecordReader(path), PyAVReader(path)
    order = [*np.random.default_rng(0).permutation(len(truth)), 0]
    assert [read_index(frame) for frame in by_decord.get_batch(order).asnumpy()] == [truth[i] for i in order]
    np.testing.assert_array_equal(by_decord.timestamps(), by_pyav.timestamps())
    assert by_decord.duration == by_pyav.duration and by_decord.get_avg_fps() == by_pyav.get_avg_fps()


def test_windows(kinds):
    reader = DecordReader(str(kinds[0] / 'h264.mp4'), start=1, end=1.2)
    assert [read_index(frame) for frame in reader.get_batch(range(5)).asnumpy()] == list(range(25, 30))
    assert len(reader) == 5 and reader.timestamps()[0] == 1
    with pytest.raises(VideoDecodeError, match='the clip starts at 5 s, the video ends at 2.4 s'):
        DecordReader(str(kinds[0] / 'h264.mp4'), start=5)


@pytest.mark.parametrize('name', REFUSED)
def test_what_it_gets_wrong_is_refused(kinds, name):
    if name not in kinds[1]:
        pytest.skip('this FFmpeg has no encoder for it')
    with pytest.raises(VideoDecodeError, match=REFUSED[name]) as error:
        DecordReader(str(kinds[0] / name))
    assert error.value.path.endswith(name) and error.value.reason.endswith('use PyAVReader')


def test_mmaction2s_own_transforms_decode_beside_it(kinds):
    results = dict(filename=str(kinds[0] / 'h264.mp4'), start_index=0, modality='RGB')
    for step in (dict(type='mmaction.DecordInit'),
                 dict(type='mmaction.SampleFrames', clip_len=1, num_clips=6, test_mode=True),
                 dict(type='mmaction.DecordDecode')):
        results = TRANSFORMS.build(step)(results)
    assert [read_index(frame) for frame in results['imgs']] == results['frame_inds'].tolist() == [5, 15, 25, 35, 45, 55]


def test_what_it_does_not_show_as_a_player_does_is_refused(tmp_path):
    turned = set_matrix(encode_video(tmp_path / 'a.mp4', 5, size=(96, 160)), 0, 1, -1, 0)
    assert DecordReader(turned).get_batch([0]).asnumpy().shape == (1, 160, 96, 3)
    for says, path in (
            ('mirrored pictures', set_matrix(encode_video(tmp_path / 'b.mp4', 5), -1, 0, 0, 1)),
            ('pixels that are not square', encode_video(tmp_path / 'c.mp4', 5, aspect=Fraction(4, 3))),
            ('HDR colors', encode_video(tmp_path / 'd.mp4', 5, pix_fmt='yuv420p10le', transfer=18))):
        with pytest.raises(VideoDecodeError, match=f'a video with {says} is not supported by DecordReader: '):
            DecordReader(path)


@pytest.mark.parametrize('name', ['h264_open.mp4', 'cut.mp4', 'h264.ts', 'mpeg2.mpg'])
def test_decord_would_make_other_frames_of_what_it_is_kept_away_from(kinds, name):
    """If this fails, a new decord may be trusted with more."""
    import decord
    path, truth = str(kinds[0] / name), kinds[1][name]
    order = np.random.default_rng(0).permutation(len(truth))
    found = decord.VideoReader(path).get_batch(order).asnumpy()
    assert [read_index(frame) for frame in found] != [truth[i] for i in order]


def test_decord2_is_refused(kinds, monkeypatch):
    decord_reader._decord.cache_clear()
    monkeypatch.setitem(sys.modules, 'decord', types.SimpleNamespace(__version__='3.4.0'))
    with pytest.raises(ImportError, match='decord 3.4.0 is decord2, which returns wrong frames under load'):
        DecordReader(str(kinds[0] / 'h264.mp4'))


def test_without_decord(kinds, monkeypatch):
    decord_reader._decord.cache_clear()
    monkeypatch.setitem(sys.modules, 'decord', None)
    with pytest.raises(ImportError, match='DecordReader needs decord: .*PyAVReader does not'):
        DecordReader(str(kinds[0] / 'h264.mp4'))


def test_is_registered():
    assert READERS.get('DecordReader') is DecordReader
