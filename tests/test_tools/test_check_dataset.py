"""What is wrong with a data set is found before training, and nothing that is wrong ends the check."""
import csv
import json
import os
import shutil
import signal
import struct
import time

import pytest

from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool, start_tool
from tests.videos import broken_videos, cut_video, encode_video
from vop_mm.datasets import read_annotation
from vop_mm.datasets.decoding import torchcodec_problem
from vop_mm.datasets.transforms import OpenVideo

TOOL = 'tools/data/check_dataset.py'


def annotate(folder, clips, name='train.json'):
    """clips: (video, start, end), or a video."""
    entries = []
    for clip in clips:
        video, *times = (clip, ) if isinstance(clip, str) else clip
        entry = dict(video_id=f'{video}-{times}', video=video, captions=['a cat'], split='kept')
        entries.append({**entry, **{key: time for key, time in zip(('start', 'end'), times) if time is not None}})
    (folder / name).write_text(json.dumps(dict(metainfo=dict(dataset='made'), data_list=entries)))
    return folder / name


def check(folder, *args, before=None):
    return run_tool(TOOL, folder / 'train.json', '--video-dir', folder / 'videos', '--workers', '2', *args,
                    before=before)


def report(path):
    with open(path, newline='') as file:
        return {(row['video'], row['start'], row['end']): row for row in csv.DictReader(file)}


def lie_about_frames(path, count):
    """Write another number of frames into the headers of an AVI."""
    data = bytearray(path.read_bytes())
    for header, offset in ((b'avih', 24), (b'strh', 40)):
        struct.pack_into('<I', data, data.index(header) + offset, count)
    path.write_bytes(data)


def spoil_end(path, share):
    """Zeros in place of an mp4's last pictures."""
    import av
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for pos, size in packets[-int(len(packets) * share):]:
        data[pos:pos + size] = bytes(size)
    path.write_bytes(data)


CRASH, HANG = 'crash.mp4', 'hang.mp4'


def misbehave():
    """In the tool's process: a decoder that dies on one file and never ends on another."""
    transform = OpenVideo.transform

    def replaced(self, results):
        name = os.path.basename(results['filename'])
        if name == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        while name == HANG:
            time.sleep(1)
        return transform(self, results)

    OpenVideo.transform = replaced


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A split with everything that can be wrong, and what the check said of it."""
    folder = tmp_path_factory.mktemp('split')
    videos = folder / 'videos'
    videos.mkdir()
    for name in ('good.mp4', 'männchen – 走.mp4', CRASH, HANG, 'spoilt.mp4'):
        encode_video(videos / name, 60)  # 2.4 s
    encode_video(videos / 'one.mp4', 1)
    encode_video(videos / 'stream.ts', 60)
    cut_video(videos / 'good.mp4', videos / 'cut.mp4', 0.7)
    encode_video(videos / 'lies.avi', 60, codec='mpeg4')
    lie_about_frames(videos / 'lies.avi', 120)
    spoil_end(videos / 'spoilt.mp4', 0.1)
    broken = [os.path.basename(path) for path in broken_videos(videos).values()]
    clips = ['good.mp4', ('good.mp4', 1.0, 2.0), ('good.mp4', 0, 30.0), ('good.mp4', 5.0, 9.0), 'männchen – 走.mp4',
             CRASH, HANG, 'one.mp4', 'stream.ts', 'cut.mp4', 'lies.avi', 'spoilt.mp4', 'gone.mp4', *broken]
    annotate(folder, clips)
    done = check(folder, '--timeout', '5', '--quarantine', folder / 'fit.json', before=misbehave)
    return folder, done, report(folder / 'train.check.csv')


@pytest.mark.parametrize('clip, problem, says', [
    (('good.mp4', '', ''), '', ''),
    (('good.mp4', '1.0', '2.0'), '', ''),
    (('männchen – 走.mp4', '', ''), '', ''),
    (('good.mp4', '5.0', '9.0'), 'times', 'the clip starts at 5 s, the video ends at 2.4 s'),
    ((CRASH, '', ''), 'unreadable', 'the decoder died: SIGSEGV'),
    ((HANG, '', ''), 'unreadable', 'did not end within 5 s'),
    (('stream.ts', '', ''), 'wrong frames', 'MPEG transport stream'),
    (('lies.avi', '', ''), 'frame count', 'says 120 frames, 60 are there'),
    (('spoilt.mp4', '', ''), 'frame count', 'of 60 frames the last one'),
    (('gone.mp4', '', ''), 'missing', 'no such file'),
    (('truncated.mp4', '', ''), 'unreadable', 'not a video'),
    (('truncated_faststart.mp4', '', ''), 'unreadable', 'damaged or cut off'),
    (('garbage.mp4', '', ''), 'unreadable', 'not a video'),
    (('text.mp4', '', ''), 'unreadable', 'not a video'),
    (('empty.mp4', '', ''), 'unreadable', 'the file is empty'),
    (('audio_only.mp4', '', ''), 'no video', 'no video stream')])
def test_problems(made, clip, problem, says):
    row = made[2][clip]
    assert row['problem'] == problem and says in row['detail'] and not row['notes'], row


def test_what_is_odd_and_fit_is_noted(made):
    _, _, rows = made
    one, late = rows['one.mp4', '', ''], rows['good.mp4', '0', '30.0']
    assert (one['problem'], one['notes'], one['detail'], one['frames']) == ('', 'short', '1 of 12 frames', '1')
    assert (late['problem'], late['notes']) == ('', 'ends early')
    assert late['detail'] == 'the clip ends at 30 s, the video at 2.40 s'
    found = [late[key] for key in ('frames', 'fps', 'seconds', 'height', 'width')]
    assert found == ['60', '25.0', '2.4', '48', '80']
    cut = rows['cut.mp4', '', '']
    expected = ('wrong frames', '') if torchcodec_problem() else ('', 'torchcodec')
    assert (cut['problem'], cut['notes']) == expected and 'edit list' in cut['detail']


def test_summary_and_status(made):
    folder, done, rows = made
    bad = sum(bool(row['problem']) for row in rows.values())
    assert done.returncode == 3 and f'{len(rows)} clips, {len(rows) - bad} fit, {bad} not' in done.stdout, done.stderr
    assert '1 no video: no video stream: audio_only.mp4\n' in done.stdout
    assert '2 frame count: not as many frames as the container says: lies.avi, spoilt.mp4\n' in done.stdout
    assert '1 short (fit): ' in done.stdout and f'report: {folder}/train.check.csv' in done.stdout


def test_quarantine_leaves_what_is_fit(made):
    folder, _, rows = made
    metainfo, entries = read_annotation(str(folder / 'fit.json'))
    _, before = read_annotation(str(folder / 'train.json'))
    fit = {row['video_id'] for row in rows.values() if not row['problem']}
    assert metainfo == dict(dataset='made') and entries == [entry for entry in before if entry['video_id'] in fit]
    done = run_tool(TOOL, folder / 'fit.json', '--video-dir', folder / 'videos')
    assert done.returncode == 0 and ' 0 not' in done.stdout, done.stdout


def test_a_second_run_checks_what_changed(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / 'split')
    (folder / 'videos' / 'garbage.mp4').unlink()
    encode_video(folder / 'videos' / 'garbage.mp4', 30)
    done = check(folder)  # nothing of it crashes or hangs now, but that is not looked at
    rows = report(folder / 'train.check.csv')
    assert f'{len(rows) - 1} of {len(rows)} clips were checked before' in done.stdout and done.returncode == 3
    assert not rows['garbage.mp4', '', '']['problem'] and rows[CRASH, '', '']['problem'] == 'unreadable'
    assert list(rows) == list(made[2])
    assert 'were checked before' not in check(folder, '--num-frames', '8').stdout


def test_killed_and_run_again(tmp_path):
    (tmp_path / 'videos').mkdir()
    names = [f'{i}.mp4' for i in range(60)]
    encode_video(tmp_path / 'videos' / names[0], 100, size=(180, 320))
    for name in names[1:]:
        shutil.copy(tmp_path / 'videos' / names[0], tmp_path / 'videos' / name)
    annotate(tmp_path, names)
    path = tmp_path / 'train.check.csv'
    process = start_tool(TOOL, tmp_path / 'train.json', '--video-dir', tmp_path / 'videos', '--workers', '1')
    while not path.is_file() or len(path.read_bytes().splitlines()) < 4:
        assert process.poll() is None, process.stdout.read()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with path.open('ab') as file:
        file.write(b'59.mp4-[],59.mp4,,,,')  # a row cut off
    done = check(tmp_path)
    there = int(done.stdout.split(' of 60 clips were checked before')[0].split()[-1])
    assert 3 <= there < 60 and done.returncode == 0 and '60 fit, 0 not' in done.stdout, done.stdout
    assert [key[0] for key in report(path)] == names


def test_by_config(small_demo, tmp_path):
    done = run_tool(TOOL, TRAIN, '--split', 'val', '--report', tmp_path / 'r.csv', *options(small_demo))
    assert done.returncode == 0 and f'{small_demo}/dev.json: 12 clips, 12 fit, 0 not' in done.stdout, done.stderr
    assert {row['num_frames'] for row in report(tmp_path / 'r.csv').values()} == {'12'}


def test_bad_arguments(made, tmp_path):
    folder = made[0]
    for arguments, status, says in [
            ((folder / 'train.json', ), 2, 'ANN_FILE with --video-dir'),
            ((tmp_path / 'none.json', '--video-dir', tmp_path), 1, 'no such annotation file'),
            ((folder / 'train.json', '--video-dir', tmp_path / 'none'), 1, 'no such folder'),
            ((folder / 'train.json', '--video-dir', folder, '--quarantine', folder / 'train.json'), 1,
             'must not replace'),
            ((folder / 'train.json', '--video-dir', folder, '--report', folder / 'train.json'), 1, 'not a report')]:
        done = run_tool(TOOL, *arguments)
        assert done.returncode == status and says in done.stderr, done.stderr
    assert read_annotation(str(folder / 'train.json'))
