"""Compressed videos show the frames of their sources."""
import os
import shutil
import signal
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.hdr import HLG, PQ, to_hdr
from tests.test_datasets.test_decoding.test_pyav_reader import MATRICES, set_matrix
from tests.tools import run_tool, start_tool, wait_until
from tests.video_kinds import join_tracks
from tests.videos import broken_videos, cut_video, encode_video, read_index
from vop_mm.datasets.decoding import PyAVReader

TOOL = 'tools/data/compress_videos.py'
if shutil.which('ffmpeg') is None:
    pytest.importorskip('imageio_ffmpeg', reason='no ffmpeg on PATH and no imageio-ffmpeg')


def frames(path):
    reader = PyAVReader(str(path))
    return reader.get_batch(range(len(reader))).asnumpy()


def indices(path):
    return [read_index(frame) for frame in frames(path)]


def irregular(count):
    return np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.2, 0.5], count))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A folder of videos, its compressed copy, and what was printed."""
    source, out = (tmp_path_factory.mktemp('videos') / name for name in ('source', 'out'))
    (source / 'deep' / 'er').mkdir(parents=True)
    encode_video(source / 'wide.mp4', 60, size=(96, 160))
    encode_video(source / 'high.mkv', 30, size=(160, 90))
    encode_video(source / 'deep' / 'er' / 'männchen – 走.MP4', 20, size=(96, 160), codec='hevc')
    encode_video(source / 'deep' / 'small.avi', 20, size=(30, 50), codec='mpeg4')
    encode_video(source / 'irregular.mp4', 40, times=irregular(40), size=(96, 160))
    cut_video(source / 'wide.mp4', source / 'cut.mp4', 0.7)
    encode_video(source / 'stream.ts', 30, size=(96, 160))
    set_matrix(encode_video(source / 'turned.mp4', 10, size=(96, 160)), *MATRICES['turned right'][0])
    (source / 'notes.txt').write_text('mine')
    done = run_tool(TOOL, source, out, '--short-side', '64', '--workers', '2')
    assert done.returncode == 0, done.stdout + done.stderr
    return source, out, done.stdout


def test_all_videos_at_their_places(made):
    source, out, said = made
    assert {str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()} == {
        'compressed.json', 'wide.mp4', 'high.mp4', 'deep/er/männchen – 走.mp4', 'deep/small.mp4', 'irregular.mp4',
        'cut.mp4', 'stream.mp4', 'turned.mp4'}
    assert 'left out: 1 file without a video extension (.txt 1)' in said and '8 of 8 videos' in said
    assert '4 videos change their extension to .mp4' in said


@pytest.mark.parametrize('name, size, expected', [
    ('wide', (64, 106), range(60)), ('high', (114, 64), range(30)), ('deep/er/männchen – 走', (64, 106), range(20)),
    ('deep/small', (30, 50), range(20)), ('irregular', (64, 106), range(40)), ('stream', (64, 106), range(30)),
    ('cut', (64, 106), range(18, 60))])
def test_the_same_frames_smaller(made, name, size, expected):
    path = made[1] / f'{name}.mp4'
    assert frames(path).shape[1:3] == size and indices(path) == list(expected)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ['video']
        assert container.streams[0].codec_context.name == 'h264' and 'mp4' in container.format.name


def test_turned_videos_are_upright(made):
    copy = frames(made[1] / 'turned.mp4')
    assert copy.shape[1:3] == (106, 64)
    source = frames(made[0] / 'turned.mp4')
    assert source.shape[1:3] == (160, 96)
    assert abs(copy[7, ::2, ::2].mean(axis=(1, 2)) - source[7, ::3, ::3].mean(axis=(1, 2))[:53]).mean() < 12


def test_times_are_kept(made):
    found = PyAVReader(str(made[1] / 'irregular.mp4')).timestamps()
    np.testing.assert_allclose(found, irregular(40) - irregular(40)[0], atol=2e-3)


def test_a_key_frame_every_second(made):
    with av.open(str(made[1] / 'wide.mp4')) as container:
        keys = [float(packet.pts * packet.time_base) for packet in container.demux(video=0)
                if packet.pts is not None and packet.is_keyframe]
    assert np.diff([*keys, 2.4]).max() <= 1.01


def test_frame_rate(made, tmp_path):
    (tmp_path / 'source').mkdir()
    shutil.copy(made[0] / 'wide.mp4', tmp_path / 'source')
    assert run_tool(TOOL, tmp_path / 'source', tmp_path / 'out', '--fps', '5').returncode == 0
    found = indices(tmp_path / 'out' / 'wide.mp4')  # 2.4 s
    assert len(found) == 12 and all(4 <= step <= 6 for step in np.diff(found)), found
    assert frames(tmp_path / 'out' / 'wide.mp4').shape[1:3] == (96, 160)  # never enlarged to 224


def test_a_second_run_makes_what_is_new_or_changed(made, tmp_path):
    source, out = shutil.copytree(made[0], tmp_path / 'source'), shutil.copytree(made[1], tmp_path / 'out')
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*.mp4')}
    encode_video(source / 'wide.mp4', 12, first=100, size=(96, 160))
    os.utime(source / 'wide.mp4', (1, 1))
    encode_video(source / 'new.mp4', 8, size=(96, 160))
    done = run_tool(TOOL, source, out, '--short-side', '64')
    assert done.returncode == 0 and '9 of 9 videos, 2 of them new' in done.stdout, done.stdout + done.stderr
    assert indices(out / 'wide.mp4') == list(range(100, 112)) and indices(out / 'new.mp4') == list(range(8))
    after = {path: path.stat().st_mtime_ns for path in out.rglob('*.mp4')}
    assert {path for path in after if after[path] != before.get(path)} == {out / 'wide.mp4', out / 'new.mp4'}
    done = run_tool(TOOL, source, out)
    assert done.returncode == 1 and 'another short_side: 64 there, 224 here' in done.stderr


def test_broken_videos_are_listed_and_leave_nothing(tmp_path):
    (tmp_path / 'source').mkdir()
    broken = broken_videos(tmp_path / 'source')
    encode_video(tmp_path / 'source' / 'good.mp4', 10)
    done = run_tool(TOOL, tmp_path / 'source', tmp_path / 'out')
    assert done.returncode == 3 and f'{len(broken)} failed' in done.stdout, done.stdout + done.stderr
    for path in broken.values():
        assert f'  {path}: ' in done.stdout
    assert f'{broken["audio_only"]}: no video stream' in done.stdout
    assert f'{broken["truncated_faststart"]}: the file is damaged or truncated' in done.stdout  # a success to ffmpeg
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['compressed.json', 'good.mp4']


def test_killed_and_run_again(tmp_path):
    (tmp_path / 'source').mkdir()
    for i in range(8):
        encode_video(tmp_path / 'source' / f'{i}.mp4', 40, size=(180, 320))
    arguments = (TOOL, tmp_path / 'source', tmp_path / 'out', '--short-side', '120', '--workers', '1')
    process = start_tool(*arguments)
    wait_until(lambda: len(list((tmp_path / 'out').glob('*.mp4'))) >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    there = list((tmp_path / 'out').glob('*.mp4'))
    assert len(there) < 8 and all(indices(path) == list(range(40)) for path in there)
    done = run_tool(*arguments)
    assert done.returncode == 0 and f'{8 - len(there)} of them new' in done.stdout, done.stdout + done.stderr
    assert all(indices(tmp_path / 'out' / f'{i}.mp4') == list(range(40)) for i in range(8))
    assert not list((tmp_path / 'out').glob('.*'))


def test_bad_arguments_are_one_line(made, tmp_path):
    source = made[0]
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'thesis.txt').write_text('mine')
    for arguments, says in [((tmp_path / 'none', tmp_path / 'out'), 'no such folder'),
                            ((tmp_path / 'thesis', tmp_path / 'out'), 'no videos'),
                            ((source, source / 'out'), 'lies in'),
                            ((source, tmp_path / 'thesis'), 'neither empty nor')]:
        done = run_tool(TOOL, *arguments)
        assert done.returncode == 1 and done.stderr.startswith('error: ') and says in done.stderr, done.stderr
    done = run_tool(TOOL, source, tmp_path / 'out', before=without_ffmpeg)
    assert done.returncode == 1 and 'no ffmpeg on PATH' in done.stderr and 'pip install imageio-ffmpeg' in done.stderr


def test_one_odd_file_does_not_stop_the_others(tmp_path):
    source, out = tmp_path / 'source', tmp_path / 'out'
    source.mkdir()
    long, too_long = f'{"長" * 82}.mp4', f'{"x" * 252}.ts'
    for name, first in (('good.mp4', 0), ('IMG_1.mp4', 100), ('IMG_2.mkv', 200), (long, 300)):
        encode_video(source / name, 10, first=first)
    encode_video(source / 'short.ts', 10)
    (source / 'short.ts').rename(source / too_long)
    encode_video(source / 'IMG_1.MOV', 10, first=400)
    encode_video(source / 'IMG_2.avi', 10, first=500, codec='mpeg4')
    done = run_tool(TOOL, source, out)
    assert done.returncode == 3 and '3 of 7 videos, 3 of them new' in done.stdout, done.stdout + done.stderr
    for name, why in [('IMG_1.MOV', 'IMG_1.mp4 would have the same copy'), ('IMG_2.mkv', 'IMG_2.avi would have the'),
                      ('IMG_2.avi', 'IMG_2.mkv would have the same copy'), (too_long, 'File name too long')]:
        line, = (line for line in done.stdout.splitlines() if line.startswith(f'  {source / name}: '))
        assert why in line
    assert {path.name for path in out.iterdir()} == {'compressed.json', 'good.mp4', 'IMG_1.mp4', long}
    assert indices(out / 'IMG_1.mp4') == list(range(100, 110))


def test_links_are_followed_and_rubbish_is_left_out(tmp_path):
    source, disk = tmp_path / 'source', tmp_path / 'disk'
    for folder in (source / '@eaDir' / 'a.mp4', disk):
        folder.mkdir(parents=True)
    encode_video(source / 'a.mp4', 10)
    encode_video(disk / 'b.mp4', 10, first=100)
    for name in ('@eaDir/a.mp4/SYNOPHOTO_FILM_M.mp4', '._a.mp4', 'b.mp4.part', 'notes.txt'):
        (source / name).write_bytes(b'rubbish')
    (source / 'linked').symlink_to(disk)
    (source / 'linked' / 'back').symlink_to(source)
    done = run_tool(TOOL, source, tmp_path / 'out')
    assert done.returncode == 0 and '2 of 2 videos' in done.stdout, done.stdout + done.stderr
    said, = (line for line in done.stdout.splitlines() if line.startswith('left out: '))
    assert said == ('left out: 1 linked to a folder that was already searched (linked/back); 1 not fully downloaded '
                    '(b.mp4.part); 2 system files (._a.mp4, @eaDir); 1 file without a video extension (.txt 1)')
    assert {str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*')} == {
        'compressed.json', 'a.mp4', 'linked', 'linked/b.mp4'}
    assert indices(tmp_path / 'out' / 'linked' / 'b.mp4') == list(range(100, 110))
    (source / 'copies').symlink_to(tmp_path / 'out')
    done = run_tool(TOOL, source, tmp_path / 'out')
    assert done.returncode == 1 and 'copies would be mistaken for videos' in done.stderr, done.stdout + done.stderr


def test_the_track_that_is_read_is_the_one_that_is_copied(tmp_path):
    """A camera's small first track is not what training sees."""
    small, large = (encode_video(tmp_path / f'{first}.mp4', 20, first=first, size=size)
                    for first, size in ((300, (48, 80)), (500, (96, 160))))
    (tmp_path / 'source').mkdir()
    join_tracks(tmp_path / 'source' / 'two.mov', small, large)
    assert run_tool(TOOL, tmp_path / 'source', tmp_path / 'out').returncode == 0
    assert indices(tmp_path / 'out' / 'two.mp4') == indices(tmp_path / 'source' / 'two.mov') == list(range(500, 520))


def test_a_copy_looks_as_its_source_does(tmp_path):
    """As the reader shows either."""
    source, out = tmp_path / 'source', tmp_path / 'out'
    source.mkdir()
    row = np.linspace(0, 160, 128)[:, None] * [1, .7, .4]
    image = np.broadcast_to(row, (64, 128, 3)).astype(np.uint8)
    for name, transfer in (('pq', PQ), ('hlg', HLG)):
        encode_video(source / f'{name}.mp4', [to_hdr(image, transfer)] * 5, transfer=transfer, codec='hevc',
                     pix_fmt='yuv420p10le')
    set_matrix(encode_video(source / 'mirrored.mp4', [image[:, ::-1]] * 5), *MATRICES['mirrored'][0])
    encode_video(source / 'wide.mp4', [image[:, ::2]] * 5, aspect=Fraction(2))
    encode_video(source / 'full.mp4', [image] * 5, pix_fmt='yuvj420p')
    encode_video(source / 'hd.mp4', [image] * 5, matrix=1)
    done = run_tool(TOOL, source, out)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in source.iterdir():
        expected, found = frames(path)[2].astype(int), frames(out / path.name)[2].astype(int)
        assert expected.shape == found.shape == image.shape, path
        assert np.abs(expected - image).mean() < 4, path
        assert np.abs(found - expected).mean() < 3, path


def test_a_disk_that_is_not_there_is_listed(tmp_path):
    (tmp_path / 'source').mkdir()
    encode_video(tmp_path / 'source' / 'a.mp4', 5)
    (tmp_path / 'source' / 'holiday').symlink_to(tmp_path / 'disk')
    os.mkfifo(tmp_path / 'source' / 'b.mp4')
    done = run_tool(TOOL, tmp_path / 'source', tmp_path / 'out')
    assert done.returncode == 3 and '1 of 3 videos' in done.stdout, done.stdout + done.stderr
    assert f'  {tmp_path}/source/holiday: linked to nothing\n' in done.stdout
    assert f'  {tmp_path}/source/b.mp4: not a regular file\n' in done.stdout


def test_playlists_and_names_reach_no_other_file(tmp_path):
    source = tmp_path / 'source'
    source.mkdir()
    secret = tmp_path / 'secret.ts'
    encode_video(secret, 10, size=(96, 160))
    (source / 'hls.mp4').write_text(f'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n')
    (source / 'list.mkv').write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    encode_video(source / 'a:b.mp4', 10)
    encode_video(source / '%03d.mp4', 10)
    done = run_tool(TOOL, '.', tmp_path / 'out', cwd=source)
    assert done.returncode == 3 and '2 of 4 videos' in done.stdout, done.stdout + done.stderr
    assert done.stdout.count('not a video of a known container') == 2 and str(secret) not in done.stdout
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'compressed.json', 'a:b.mp4', '%03d.mp4'}


def test_large_frames_are_refused(tmp_path):
    (tmp_path / 'source').mkdir()
    encode_video(tmp_path / 'source' / 'a.mp4', 2, size=(240, 320))
    done = run_tool(TOOL, tmp_path / 'source', tmp_path / 'out',
                    before=lambda: os.environ.update(VOP_MM_MAX_PIXELS='60000'))
    assert done.returncode == 3 and 'frames of 320 x 240 pixels are too large' in done.stdout, done.stdout + done.stderr


def test_memory_is_limited(tmp_path):
    (tmp_path / 'source').mkdir()
    encode_video(tmp_path / 'source' / 'a.mp4', 2, size=(1080, 1920))
    done = run_tool(TOOL, tmp_path / 'source', tmp_path / 'out',
                    before=lambda: os.environ.update(VOP_MM_MAX_MEMORY='50000000'))
    assert done.returncode == 3 and '0 of 1 videos' in done.stdout, done.stdout + done.stderr


def test_names_reach_no_terminal(tmp_path):
    (tmp_path / 'source').mkdir()
    (tmp_path / 'source' / 'a\x1b[2J\nb.mp4').write_text('no video')
    done = run_tool(TOOL, tmp_path / 'source', tmp_path / 'out')
    assert done.returncode == 3 and 'a\\x1b[2J\\nb.mp4: not a video' in done.stdout, done.stdout + done.stderr


def test_a_codec_that_is_not_on_the_list(tmp_path):
    (tmp_path / 'source').mkdir()
    encode_video(tmp_path / 'source' / 'a.avi', 5, codec='cinepak', pix_fmt='rgb24')
    done = run_tool(TOOL, tmp_path / 'source', tmp_path / 'out')
    assert done.returncode == 3 and 'the codec cinepak is not read' in done.stdout, done.stdout


def without_ffmpeg():
    os.environ['PATH'] = ''
    sys.modules['imageio_ffmpeg'] = None
