"""The same frames from both decoders, on files whose frames have their index painted in, and no wrong ones silently."""
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.test_datasets.test_decoding.torchcodec_process import run_with_torchcodec
from tests.videos import broken_videos, cut_video, encode_video, read_index
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import DecordReader

ORDER = [-1, 3, 30, 3, *np.random.default_rng(0).permutation(60).tolist()]  # what is asked for; modulo the count
TIMES = np.concatenate([[0], np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.2, 0.5], 59))])


def rotate(path: Path) -> str:
    """Turn an mp4 by a quarter, as a phone does that is held upright: by the matrix in its header."""
    content = bytearray(path.read_bytes())
    place = content.index(b'tkhd') + 4 + 40
    one = 1 << 16
    struct.pack_into('>9i', content, place, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return str(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Files that both decoders read exactly, files that only torchcodec does, and files that none does."""
    folder = tmp_path_factory.mktemp('videos')
    for name, codec, frames in [
            ('h264.mp4', 'h264', 60), ('hevc.mp4', 'hevc', 60), ('vp9.webm', 'vp9', 60), ('h264.mkv', 'h264', 60),
            ('mpeg4.avi', 'mpeg4', 60), ('männchen läuft – 走.mp4', 'h264', 60), ('mpeg2.mkv', 'mpeg2video', 60),
            *((f'short{n}.mp4', 'h264', n) for n in range(1, 6)), ('h264.avi', 'h264', 60), ('a.wmv', 'wmv2', 60),
            ('a.ts', 'h264', 60), ('a.mpg', 'mpeg2video', 60), ('late.asf', 'h264', 60)]:
        encode_video(folder / name, frames, codec=codec)
    for codec in ('h264', 'hevc'):
        encode_video(folder / f'{codec}_10_bit.mp4', 60, codec=codec, pix_fmt='yuv420p10le')
        encode_video(folder / f'{codec}_open.mp4', 60, codec=codec, size=(120, 160), open_gop=True)
    encode_video(folder / 'mpeg4_b.mkv', 60, codec='mpeg4', max_b_frames=2)
    encode_video(folder / 'long.wmv', 300, codec='wmv2')
    encode_video(folder / 'h264_no_b.avi', 60, max_b_frames=0)
    encode_video(folder / 'fragmented.mp4', 60, fragmented=True)
    encode_video(folder / 'vfr.mp4', 60, times=TIMES)
    encode_video(folder / 'vfr.mkv', 60, times=TIMES + 0.5)
    rotate(Path(encode_video(folder / 'rotated.mp4', 60, size=(90, 160))))
    cut_video(folder / 'h264.mp4', folder / 'cut.mp4', 0.6)
    cut_video(folder / 'h264.mp4', folder / 'cut_at_key.mp4', 0.48)
    cut_video(folder / 'h264.mp4', folder / 'delayed.mp4', -0.5)
    broken_videos(folder)
    return folder


EXACT = {**dict.fromkeys(['h264.mp4', 'hevc.mp4', 'h264_10_bit.mp4', 'hevc_10_bit.mp4', 'vp9.webm', 'h264.mkv',
                          'mpeg2.mkv', 'mpeg4.avi', 'fragmented.mp4', 'vfr.mp4', 'vfr.mkv', 'rotated.mp4',
                          'delayed.mp4', 'männchen läuft – 走.mp4'], 60),
         **{f'short{n}.mp4': n for n in range(1, 6)}}
BROKEN = {'truncated': 'damaged', 'truncated_faststart': 'damaged', 'garbage': 'not a video', 'text': 'not a video',
          'empty': 'file is empty', 'audio_only': 'no video stream'}


def read(kind: type, path: str) -> dict:
    """What a reader says of a file."""
    try:
        reader = kind(path)
        count = len(reader)
        frames = reader.get_batch([i % count for i in ORDER]).asnumpy()
        if 'rotated' in path:
            frames = frames.transpose(0, 2, 1, 3)
        times = reader.timestamps()
        return dict(count=count, frames=[read_index(frame) for frame in frames], fps=reader.get_avg_fps(),
                    times=[float(times[i % count]) for i in (0, 1, 7, -1)])
    except VideoDecodeError as e:
        return dict(path=e.path, error=e.reason)


@pytest.fixture(scope='module')
def by_decord(folder):
    return {path.name: read(DecordReader, str(path)) for path in folder.iterdir()}


@pytest.fixture(scope='module')
def by_torchcodec(folder, tmp_path_factory):
    code = ('from tests.test_datasets.test_decoding.test_readers import read\n'
            'from vop_mm.datasets.decoding import TorchCodecReader\n'
            'result = {name: read(TorchCodecReader, path) for name, path in argument.items()}')
    return run_with_torchcodec(code, {path.name: str(path) for path in folder.iterdir()},
                               tmp_path_factory.mktemp('ffmpeg'))


@pytest.fixture(params=['decord', 'torchcodec'])
def found(request):
    return request.getfixturevalue(f'by_{request.param}')


@pytest.mark.parametrize('name', EXACT)
def test_frames_are_the_ones_asked_for(found, name):
    count = EXACT[name]
    assert found[name].get('count') == count, found[name]
    assert found[name]['frames'] == [i % count for i in ORDER]


@pytest.mark.parametrize('name', EXACT)
def test_times_are_those_of_the_file(found, name):
    times = TIMES if name.startswith('vfr') else np.arange(60) / 25
    count = EXACT[name]
    np.testing.assert_allclose(found[name]['times'], [times[i % count] for i in (0, 1, 7, -1)], atol=2e-3)
    if not name.startswith('vfr'):
        assert found[name]['fps'] == pytest.approx(25, rel=0.01)


def test_a_cut_without_edit_list_is_a_shorter_video(found):
    assert found['cut_at_key.mp4']['frames'] == [12 + i % 48 for i in ORDER]


def test_an_edit_list_that_hides_frames(by_decord, by_torchcodec):
    assert 'hides 3 of its 48 frames' in by_decord['cut.mp4']['error']
    assert by_torchcodec['cut.mp4']['frames'] == [15 + i % 45 for i in ORDER]


def test_windows_media(by_decord, by_torchcodec):
    assert 'Windows Media' in by_decord['a.wmv']['error'] and 'Windows Media' in by_decord['late.asf']['error']
    assert by_torchcodec['a.wmv']['frames'] == [i % 60 for i in ORDER]


@pytest.mark.parametrize('name', ['h264_open.mp4', 'hevc_open.mp4', 'mpeg4_b.mkv'])
def test_open_groups_of_pictures(by_decord, by_torchcodec, name):
    assert 'stored behind a key frame and shown before it' in by_decord[name]['error']
    assert by_torchcodec[name]['frames'] == [i % 60 for i in ORDER]


def test_pictures_without_times_that_are_in_order(by_decord, by_torchcodec):
    assert 'no times of their own' in by_decord['h264_no_b.avi']['error']
    assert by_torchcodec['h264_no_b.avi']['frames'] == [i % 60 for i in ORDER]


@pytest.mark.parametrize('name', ['cut.mp4', 'long.wmv', 'h264_open.mp4', 'hevc_open.mp4', 'mpeg4_b.mkv', 'a.ts',
                                  'a.mpg'])
def test_decord_would_make_other_frames_of_what_it_is_kept_away_from(folder, name):
    """If this fails, a new decord may be trusted with more."""
    import decord  # not before PyAV, whose VP9 encoder then fails
    reader = decord.VideoReader(str(folder / name))
    first, count = {'cut.mp4': (15, 45), 'long.wmv': (0, 300)}.get(name, (0, 60))
    asked = [i % 60 * count // 60 for i in ORDER]
    assert [read_index(frame) - first for frame in reader.get_batch(asked).asnumpy()] != asked


@pytest.mark.parametrize('name, says', [('a.ts', 'transport stream'), ('a.mpg', 'program stream'),
                                        ('h264.avi', 'no times of their own')])
def test_what_both_get_wrong_both_refuse(found, name, says):
    assert says in found[name]['error'] and 'convert it' in found[name]['error']


def test_torchcodec_refuses_windows_media_without_times(by_torchcodec):
    assert 'no times of their own' in by_torchcodec['late.asf']['error']


@pytest.mark.parametrize('kind', BROKEN)
def test_broken_files_are_errors_of_one_line(found, folder, kind):
    answer = found[f'{kind}.mp4']
    assert answer['path'] == str(folder / f'{kind}.mp4')
    assert BROKEN[kind] in answer['error'] and '\n' not in answer['error'] and 'cpp' not in answer['error']
