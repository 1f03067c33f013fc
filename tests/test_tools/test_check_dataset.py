"""What is wrong with a data set is found before training, and nothing that is wrong ends the check."""
import csv
import json
import os
import shutil
import signal
import struct
import time

import pytest

from tests.odd_files import write_odd_files
from tests.s3 import s3_server
from tests.test_datasets.test_tar_video_text_dataset import write_shard
from tests.test_tools.test_train import TRAIN, options
from tests.tools import ROOT, ForkedTool, run_tool, start_tool, wait_until
from tests.video_kinds import join_tracks
from tests.videos import broken_videos, cut_video, encode_video, spoil_frames
from tests.web import web_server
from vop_mm.datasets import read_annotation
from vop_mm.datasets.decoding import PyAVReader

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


CRASH, HANG = 'crash.mp4', 'hang.mp4'


def misbehave():
    """In the tool's process: a decoder that dies on one file and never ends on another."""
    opened = PyAVReader.__init__

    def replaced(self, path, *args):
        name = os.path.basename(path)
        if name == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        while name == HANG:
            time.sleep(1)
        opened(self, path, *args)

    PyAVReader.__init__ = replaced


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
    join_tracks(videos / 'tracks.mov', encode_video(videos / 'small.mp4', 60, size=(32, 48)), videos / 'good.mp4')
    encode_video(videos / 'hdr.mp4', 60, pix_fmt='yuv420p10le', transfer=16)
    spoil_frames(videos / 'spoilt.mp4', slice(-6, None))
    broken = [os.path.basename(path) for path in broken_videos(videos).values()]
    clips = ['good.mp4', ('good.mp4', 1.0, 2.0), ('good.mp4', 0, 30.0), ('good.mp4', 5.0, 9.0), 'männchen – 走.mp4',
             CRASH, HANG, 'one.mp4', 'stream.ts', 'cut.mp4', 'lies.avi', 'tracks.mov', 'hdr.mp4', 'spoilt.mp4',
             'gone.mp4', *broken]
    annotate(folder, clips)
    done = check(folder, '--timeout', '5', '--quarantine', folder / 'fit.json', before=misbehave)
    return folder, done, report(folder / 'train.check.csv')


@pytest.mark.parametrize('clip, problem, says', [
    (('good.mp4', '', ''), '', ''),
    (('good.mp4', '1.0', '2.0'), '', ''),
    (('männchen – 走.mp4', '', ''), '', ''),
    (('good.mp4', '5.0', '9.0'), 'times', 'the clip starts at 5 s, the video ends at 2.4 s'),
    ((CRASH, '', ''), 'unreadable', 'the decoder crashed: SIGSEGV'),
    ((HANG, '', ''), 'unreadable', 'timed out after 5 s'),
    (('stream.ts', '', ''), '', ''),
    (('lies.avi', '', ''), '', ''),
    (('cut.mp4', '', ''), '', ''),
    (('spoilt.mp4', '', ''), 'cut off', 'of 60 frames the last one'),
    (('gone.mp4', '', ''), 'missing', 'no such file'),
    (('truncated.mp4', '', ''), 'unreadable', 'damaged, truncated'),
    (('truncated_faststart.mp4', '', ''), 'unreadable', 'damaged or truncated'),
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
    tracks, hdr = rows['tracks.mov', '', ''], rows['hdr.mp4', '', '']
    assert (tracks['problem'], tracks['notes']) == ('', 'several tracks')
    assert tracks['detail'] == '2 video tracks: the 2nd is read (80x48)' and tracks['height'] == '48'
    assert (hdr['problem'], hdr['notes'], hdr['detail']) == ('', 'HDR', 'HDR (PQ): tone mapped to SDR')


def test_summary_and_status(made):
    folder, done, rows = made
    bad = sum(bool(row['problem']) for row in rows.values())
    assert done.returncode == 3 and f'{len(rows)} clips, {len(rows) - bad} fit, {bad} not' in done.stdout, done.stderr
    assert '1 no video: no video stream: audio_only.mp4\n' in done.stdout
    assert "1 cut off: the end can't be decoded: spoilt.mp4\n" in done.stdout
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
    wait_until(lambda: path.is_file() and len(path.read_bytes().splitlines()) >= 4, process)
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
    assert {row['num_frames'] for row in report(tmp_path / 'r.csv').values()} == {'3'}


@pytest.fixture
def stores(made, tmp_path):
    """An annotation of good, broken and missing files, their names, how to read them from S3, and a web server."""
    folder, _, rows = made
    names = ['good.mp4', 'one.mp4', 'cut.mp4', 'garbage.mp4', 'gone.mp4']
    annotate(tmp_path, [(name, *(json.loads(time or 'null') for time in times)) for name, *times in rows
                        if name in names])
    with s3_server() as (options, system), web_server() as web:
        for name in names[:-1]:
            content = (folder / 'videos' / name).read_bytes()
            web.files[f'/v/{name}'] = content
            system.pipe_file(f'bucket/v/{name}', content)
        yield tmp_path / 'train.json', names, [f'{key}={value}' for key, value in options.items()], web


def found(path):
    return {key: [row[name] for name in ('problem', 'notes', 'detail', 'frames', 'seconds', 'height', 'bytes')]
            for key, row in report(path).items()}


def test_videos_elsewhere_are_found_fit_as_in_a_folder(stores, made, tmp_path):
    ann_file, names, of_s3, web = stores
    near = {key: row for key, row in found(made[0] / 'train.check.csv').items() if key[0] in names}
    (tmp_path / 'v.jsonl').write_text('\n'.join(json.dumps(dict(url=f'{web.url}/v/{name}?sign=hush'))
                                                for name in names))
    for number, place in enumerate((['s3://bucket/v', '--backend-args', *of_s3], [f'{web.url}/v'],
                                    [tmp_path / 'v.jsonl'])):
        path = tmp_path / f'{number}.csv'
        command = TOOL, ann_file, '--video-dir', *place, '--workers', '2', '--report', path
        done = run_tool(*command, '--quarantine', tmp_path / 'fit.json')
        assert done.returncode == 3 and 'hush' not in done.stdout + done.stderr + path.read_text(), done.stderr
        gone = 'no such file' if number == 0 else 'HTTP 404 Not Found'
        assert found(path) == {key: [*row[:2], gone, *row[3:]] if key[0] == 'gone.mp4' else row
                               for key, row in near.items()}
        assert [entry['video'] for entry in read_annotation(str(tmp_path / 'fit.json'))[1]] == [
            key[0] for key, row in near.items() if not row[0]]
        assert f'{len(near)} of {len(near)} clips were checked before' in run_tool(*command).stdout
    web.files['/v/garbage.mp4'] = web.files['/v/one.mp4']
    done = run_tool(*command)
    assert f'{len(near) - 1} of {len(near)} clips were checked before' in done.stdout
    assert found(path)['garbage.mp4', '', ''] == near['one.mp4', '', '']


def test_a_config_and_a_manifest_say_where_videos_and_clips_are(stores, small_demo, tmp_path):
    ann_file, _, of_s3, web = stores
    annotate(tmp_path, ['good.mp4'])
    (tmp_path / 'v.jsonl').write_text(json.dumps(dict(url=f'{web.url}/v/good.mp4', start=5)))
    place = 'val_dataloader.dataset'
    for prefix, more, status in ((tmp_path / 'v.jsonl', [], 3), (f'{web.url}/v', [], 0), (
            's3://bucket/v', [f'{place}.backend_args.{option}' for option in of_s3], 0)):
        done = run_tool(TOOL, TRAIN, '--split', 'val', '--report', tmp_path / f'{status}.csv', *options(
            small_demo, **{f'{place}.ann_file': ann_file, f'{place}.data_prefix.video': prefix}), *more)
        assert done.returncode == status, done.stdout + done.stderr
    assert report(tmp_path / '3.csv')['good.mp4', '5', '']['problem'] == 'times'  # the manifest's


def test_tar_shards_of_a_config(stores, made, tmp_path):
    videos = [made[0] / 'videos' / name for name in stores[1][:-1]]
    write_shard(tmp_path / 's-0.tar', {name: content for path in videos for name, content in (
        (path.name, path.read_bytes()), (f'{path.stem}.txt', b'a cat'))})
    (tmp_path / 'c.py').write_text(f"""_base_ = {str(ROOT / TRAIN)!r}
val_dataloader = dict(dataset=dict(_delete_=True, type='TarVideoTextDataset', data_root={str(tmp_path)!r},
    shards='s-*.tar', test_mode=True, pipeline={{{{_base_.pipeline}}}}))""")
    done = run_tool(TOOL, tmp_path / 'c.py', '--split', 'val')
    assert done.returncode == 3 and '4 clips, 3 fit, 1 not' in done.stdout, done.stdout + done.stderr
    assert [row['problem'] for row in report(tmp_path / 'c.check.csv').values()] == ['', '', '', 'unreadable']


def test_bad_arguments(made, tmp_path):
    folder = made[0]
    for arguments, status, says in [
            ((folder / 'train.json', ), 2, 'ANN_FILE with --video-dir'),
            ((tmp_path / 'none.json', '--video-dir', tmp_path), 1, 'no such annotation file'),
            ((folder / 'train.json', '--video-dir', tmp_path / 'none'), 1, 'video folder not found'),
            ((folder / 'train.json', '--video-dir', folder, '--quarantine', folder / 'train.json'), 1,
             'must not replace'),
            ((folder / 'train.json', '--video-dir', folder, '--report', folder / 'train.json'), 1, 'not a report')]:
        done = run_tool(TOOL, *arguments)
        assert done.returncode == status and says in done.stderr, done.stderr
    assert read_annotation(str(folder / 'train.json'))


DATA = ROOT / 'tests' / 'data' / 'videos'


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    """A split of files that somebody means harm with, or that nobody thought of, and what the check said of it."""
    folder = tmp_path_factory.mktemp('odd')
    videos = folder / 'videos'
    videos.mkdir()
    paths, secret = write_odd_files(folder)
    for path in paths.values():
        shutil.move(path, videos)
    shutil.copy(DATA / 'check_dataset_dies.mp4', videos)
    os.mkfifo(videos / 'fifo.mp4')
    (videos / 'zero.mp4').symlink_to('/dev/zero')
    names = ['a:b.mp4', '-i.mp4', os.fsdecode(b'\xc4\xe3.mp4'), 'x y.mp4']
    for name in names:
        encode_video(videos / 'a.mp4', 20)
        (videos / 'a.mp4').rename(videos / name)
    clips = [*names, '\ud83d.mp4', 'a\x1b[2J\nb.mp4', 'x' * 300 + '.mp4', 'fifo.mp4', 'zero.mp4',
             'check_dataset_dies.mp4', *(os.path.basename(path) for path in paths.values())]
    content = json.loads(annotate(folder, clips).read_text())
    content['data_list'][0]['captions'] = ['half of \ud83d an emoji', 'a cat 猫']
    (folder / 'train.json').write_text(json.dumps(content))
    done = check(folder, '--timeout', '20', '--quarantine', folder / 'fit.json')
    return folder, done, report(folder / 'train.check.csv'), secret, names


def test_nothing_ends_the_check(odd):
    folder, done, rows, secret, names = odd
    assert done.returncode == 3 and not done.stderr, done.stderr
    assert '\x1b' not in done.stdout and 'missing: no such file: a\\x1b[2J\\nb.mp4' in done.stdout, done.stdout
    assert len(rows) == len(read_annotation(str(folder / 'train.json'))[1])
    assert sum(not row['problem'] for row in rows.values()) == 4
    for name in names:
        assert not rows[name.encode(errors='backslashreplace').decode(), '', '']['problem']
    said = {name: (row['problem'], row['detail']) for (name, _, _), row in rows.items()}
    assert said['check_dataset_dies.mp4'][0] == 'unreadable'
    assert said['fifo.mp4'] == said['zero.mp4'] == ('unreadable', 'not a regular file')
    assert said['\\ud83d.mp4'][0] == 'unreadable' and said['x' * 300 + '.mp4'] == ('unreadable', 'File name too long')
    assert 'not a video of a known container' in said['hls.mp4'][1] and said['hls_in_packets.ts'][0] == 'unreadable'
    assert secret not in done.stdout + (folder / 'train.check.csv').read_text()


def test_a_second_run_knows_odd_names(odd):
    done = check(odd[0])
    total = len(odd[2])
    assert f'{total} of {total} clips were checked before' in done.stdout, done.stdout + done.stderr


def test_what_is_fit_keeps_its_odd_captions(odd):
    folder, *_, names = odd
    _, entries = read_annotation(str(folder / 'fit.json'))
    assert [entry['video'] for entry in entries] == names
    assert entries[0]['captions'] == ['half of \ud83d an emoji', 'a cat 猫']
    assert '猫' in (folder / 'fit.json').read_text(encoding='utf-8')


def fail_oddly():
    def fail(self, path, *args):
        raise [OverflowError('of nobody has\nthought'), MemoryError(), ZeroDivisionError(), ImportError('no decord')][
            int(os.path.basename(path)[0])]

    PyAVReader.__init__ = fail


def test_errors_that_nobody_has_thought_of_are_rows(tmp_path):
    (tmp_path / 'videos').mkdir()
    annotate(tmp_path, ['0.mp4', '1.mp4', '2.mp4'])
    done = check(tmp_path, before=fail_oddly)
    details = [row['detail'] for row in report(tmp_path / 'train.check.csv').values()]
    assert done.returncode == 3 and details[0] == 'OverflowError: of nobody has thought', done.stderr
    assert 'GB of memory' in details[1] and details[2] == 'ZeroDivisionError: '
    annotate(tmp_path, ['3.mp4'])
    done = check(tmp_path, before=fail_oddly)
    assert done.returncode == 1 and 'no decord' in done.stderr  # true of all files


def test_paths_that_lead_out_of_the_folder(made, tmp_path):
    (tmp_path / 'videos').mkdir()
    shutil.copy(made[0] / 'videos' / 'good.mp4', tmp_path)
    for video in ('../good.mp4', str(tmp_path / 'good.mp4')):
        annotate(tmp_path, [video])
        done = check(tmp_path)
        assert done.returncode == 1 and 'is outside the video folder' in done.stderr, done.stderr


def test_a_ctrl_c_ends_it_though_a_file_hangs(tmp_path):
    (tmp_path / 'videos').mkdir()
    for name in (HANG, 'good.mp4'):
        encode_video(tmp_path / 'videos' / name, 10)
    annotate(tmp_path, ['good.mp4', HANG])
    with open(tmp_path / 'out', 'w') as out, open(tmp_path / 'err', 'w') as err:
        process = ForkedTool(TOOL, tmp_path / 'train.json', '--video-dir', tmp_path / 'videos', '--workers', '1',
                             before=misbehave, out=out, err=err)
        while 'good.mp4-[],' not in (tmp_path / 'train.check.csv').read_text() if (
                tmp_path / 'train.check.csv').is_file() else True:
            assert process.poll() is None, (tmp_path / 'err').read_text()
            time.sleep(0.05)
        time.sleep(0.5)
        start = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 130 and time.monotonic() - start < 15
    assert (tmp_path / 'err').read_text() == 'interrupted\n'
