"""A name is whatever the file system takes, for every tool: no odd one stops the others, and each is found again."""
import json
import os
import shutil
import sqlite3
from contextlib import closing

import av
import pytest

from tests.checkpoints import demo_config, write_checkpoint
from tests.raw_annotations import WRITERS, msrvtt_data
from tests.test_tools.test_train import TRAIN, options
from tests.tools import ROOT, run_tool
from tests.videos import encode_video, read_index
from vop_mm.datasets import FrameStore, read_annotation
from vop_mm.utils.cli import printable

NAMES = sorted(map(os.fsdecode, (
    b'\xc4\xe3.mp4', b'Holiday: day 1.mp4', b'-i.mp4', b'x' * 251 + b'.mp4', b'a\nb.mp4', 'cafe\u0301.mp4'.encode(),
    'caf\u00e9.mp4'.encode(), b'%03d [red].mp4')))
FOLDER = os.fsdecode(b'-\xff: \n')  # of one of them
PATHS = sorted([*NAMES, f'{FOLDER}/{NAMES[0]}'])


@pytest.fixture(scope='module')
def world(small_demo, tmp_path_factory):
    """A data set of nothing but odd names, and a config and a checkpoint to index it with."""
    world = tmp_path_factory.mktemp('odd_names')
    (world / 'videos' / FOLDER).mkdir(parents=True)
    for number, path in enumerate(PATHS):
        encode_video(world / 'a.mp4', 10, first=20 * number)
        (world / 'a.mp4').rename(world / 'videos' / path)
    entries = [dict(video_id=path, video=path, captions=['a red square']) for path in PATHS]
    for split in ('train', 'dev', 'test'):
        write_ascii(world / f'{split}.json', dict(metainfo={}, data_list=entries))
    cfg = demo_config('vop/vop_demo.py')
    (world / 'config.py').write_text(cfg.pretty_text)
    write_checkpoint(world / 'a.pth', cfg, 0)
    return world


def write_ascii(path, content):
    """JSON in which what UTF-8 can't hold is escaped."""
    path.write_text(json.dumps(content))


def run(world, tool, *args, cwd=None):
    done = run_tool(tool, *args, cwd=cwd or world)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stdout + done.stderr
    return done


def check_dataset(world, out):
    run(world, 'tools/data/check_dataset.py', '../train.json', '--video-dir', '.', '--report', out / 'report.csv',
        '--quarantine', out / 'fit.json', '--workers', '2', cwd=world / 'videos')
    assert len((out / 'report.csv').read_text(encoding='utf-8').splitlines()) > len(PATHS)
    return [entry['video'] for entry in read_annotation(str(out / 'fit.json'))[1]]


def cache_frames(world, out):
    run(world, 'tools/data/cache_frames.py', TRAIN, '--out', out / 'frames', '--split', 'train', '--workers', '2',
        *options(world), cwd=ROOT)
    store = FrameStore(out / 'frames' / 'train')
    return [path for path in PATHS if len(store.frames(store.info(path), [0]))]


def compress_videos(world, out):
    run(world, 'tools/data/compress_videos.py', '.', out / 'copies', cwd=world / 'videos')
    found = []
    for path in (out / 'copies').rglob('*.mp4'):
        with path.open('rb') as file, av.open(file) as container:
            first = next(container.decode(video=0)).to_ndarray(format='rgb24')
        found.append((read_index(first), str(path.relative_to(out / 'copies'))))
    assert [index for index, _ in sorted(found)] == [20 * number for number in range(len(PATHS))]
    return [path for _, path in sorted(found)]


def index_videos(world, out):
    run(world, 'tools/index_videos.py', 'videos', out / 'index', '--config', 'config.py', '--checkpoint', 'a.pth',
        '--json', out / 'report.json')
    assert not json.loads((out / 'report.json').read_text())['failed']
    return indexed(out / 'index')


def extract_features(world, out):
    run(world, 'tools/extract_features.py', 'videos', out / 'features', '--config', 'config.py', '--checkpoint',
        'a.pth', '--shards', '2')
    run(world, 'tools/index_videos.py', 'videos', out / 'index', '--features', out / 'features')
    return indexed(out / 'index')


def indexed(index):
    with closing(sqlite3.connect(index / 'catalogue.db')) as db:
        return sorted(os.fsdecode(name) for name, in db.execute('SELECT path FROM files WHERE error IS NULL'))


def search(world, out):
    """By each of the videos, named relative to where the tool runs."""
    index_videos(world, out)
    found = []
    for path in PATHS:
        done = run(world, 'tools/search.py', out / 'index', f'--video={path}', '-k', '20', '--json', '--html',
                   out / 'page.html', cwd=world / 'videos')
        hits = json.loads(done.stdout)
        assert sorted(os.path.relpath(hit['path'], world / 'videos') for hit in hits) == PATHS
        best = [hit['path'] for hit in hits if hit['score'] > hits[0]['score'] - 1e-5]
        found += [path for hit in best if hit == str(world / 'videos' / path)]
    done = run(world, 'tools/search.py', out / 'index', 'a red square', '-k', '20')
    assert len(done.stdout.splitlines()) >= len(PATHS) and '\\udcc4' in done.stdout
    return found


@pytest.mark.parametrize('use', [check_dataset, cache_frames, compress_videos, index_videos, extract_features, search],
                         ids=lambda use: use.__name__)
def test_every_tool_takes_every_name(world, tmp_path, use):
    assert use(world, tmp_path) == PATHS


def test_training_evaluation_and_pictures_take_every_name(world, tmp_path):
    """And write one that can't be read into the log, escaped and on one line."""
    data, bad = shutil.copytree(world, tmp_path / 'data'), os.fsdecode(b'bad\xff\n: .mp4')
    (data / 'videos' / bad).write_bytes(b'<html>')
    for split in ('train', 'dev', 'test'):
        content = json.loads((data / f'{split}.json').read_text())
        content['data_list'].append(dict(video_id=bad, video=bad, captions=['half of \ud83d an emoji']))
        write_ascii(data / f'{split}.json', content)
    changes = options(data, **{
        'train_cfg.max_epochs': 1, 'param_scheduler.0.T_max': 1, 'train_dataloader.batch_size': 5,
        'train_dataloader.num_workers': 1, 'custom_hooks.1.max_share': 1,
        'val_dataloader.dataset.on_unreadable': 'skip', 'test_dataloader.dataset.on_unreadable': 'skip'})
    work = tmp_path / 'work'
    run(world, 'tools/train.py', TRAIN, '--work-dir', work, *changes, cwd=ROOT)
    checkpoint = next(work.glob('epoch_*.pth'))
    run(world, 'tools/test.py', TRAIN, checkpoint, '--work-dir', tmp_path / 'test', '--dump', tmp_path / 'a.npz',
        *changes, cwd=ROOT)
    logs = [path.read_text(encoding='utf-8') for path in sorted(tmp_path.glob('*/*/*.log'))]
    assert len(logs) == 2
    for log in logs:
        line, = (line for line in log.splitlines() if "can't decode" in line)
        assert 'bad\\udcff\\n: .mp4: not a video of a known container' in line
    run(world, 'tools/visualizations/browse_dataset.py', TRAIN, tmp_path / 'browse.png', *changes, cwd=ROOT)
    run(world, 'tools/visualizations/vis_retrieval.py', TRAIN, tmp_path / 'vis.png', '--features',
        f'a={tmp_path / "a.npz"}', *changes, cwd=ROOT)
    assert (tmp_path / 'vis.html').stat().st_size > 1000 and (tmp_path / 'browse.png').stat().st_size > 1000


@pytest.mark.parametrize('name', WRITERS)
def test_a_converter_lists_videos_of_any_name(world, tmp_path, name):
    source, videos, tool = tmp_path / 'source', tmp_path / 'videos', f'tools/dataset_converters/{name}.py'
    source.mkdir()
    WRITERS[name](source)
    run(world, tool, source, tmp_path / 'guessed')
    annotations = [json.loads(path.read_text()) for path in (tmp_path / 'guessed').glob('*.json')]
    wanted = {entry['video'] for annotation in annotations for entry in annotation['data_list']}
    for path in wanted:
        (videos / path).parent.mkdir(parents=True, exist_ok=True)
        (videos / path).write_bytes(b'x')
    (videos / 'odd').symlink_to(world / 'videos')
    (videos / 'list.txt').write_bytes(b'')
    done = run(world, tool, source, tmp_path / 'out', '--video-dir', videos)
    assert 'left out: 1 file without a video extension (.txt 1)' in done.stdout
    assert (tmp_path / 'out' / 'unannotated_videos.txt').read_text(encoding='utf-8').splitlines() == [
        printable(f'odd/{path}') for path in PATHS]
    assert (tmp_path / 'out' / 'missing_videos.txt').read_text() == ''


def test_a_converter_takes_odd_ids_and_half_an_emoji(tmp_path):
    """Names on disk are stored as ``e`` and an accent, the annotation has one letter."""
    source, videos = tmp_path / 'source', tmp_path / 'videos'
    source.mkdir()
    videos.mkdir()
    WRITERS['msrvtt'](source)
    content = json.loads((source / 'MSRVTT_data.json').read_text())
    ids = ['Holiday: day 1', '-i', 'x' * 251, 'caf\u00e9', '\ud83d', os.fsdecode(b'\xc4\xe3')]
    more = msrvtt_data(ids, 2)
    more['sentences'][0]['caption'] = 'half of \ud83d an emoji, and 猫'
    content['videos'] += more['videos']
    content['sentences'] += more['sentences']
    write_ascii(source / 'MSRVTT_data.json', content)
    in_lists = [video_id for video_id in ids if video_id.isprintable()]  # these are UTF-8
    for name in ('9k', '7k'):
        with (source / f'MSRVTT_train.{name}.csv').open('a', encoding='utf-8') as file:
            file.writelines(f'{video_id}\n' for video_id in in_lists)
    for video_id in [*(f'video{i}' for i in range(44)), 'Holiday: day 1', '-i', 'x' * 251, 'cafe\u0301']:
        (videos / f'{video_id}.mp4').write_bytes(b'x')
    done = run_tool('tools/dataset_converters/msrvtt.py', source, tmp_path / 'out', '--video-dir', videos,
                    '--dev-fraction', '0')
    assert done.returncode == 0 and 'LEFT OUT: video44' in done.stderr, done.stderr
    entries = {entry['video_id']: entry for entry in read_annotation(str(tmp_path / 'out' / 'train_9k.json'))[1]}
    assert {video_id: entries[video_id]['video'] for video_id in in_lists} == {
        'Holiday: day 1': 'Holiday: day 1.mp4', '-i': '-i.mp4', 'x' * 251: f'{"x" * 251}.mp4',
        'caf\u00e9': 'cafe\u0301.mp4'}
    assert entries['Holiday: day 1']['captions'][0] == 'half of \ud83d an emoji, and 猫'
    assert '猫' in (tmp_path / 'out' / 'train_9k.json').read_text(encoding='utf-8')


def test_a_converter_takes_ids_that_utf_8_can_not_hold(tmp_path):
    source, videos = tmp_path / 'source', tmp_path / 'videos'
    source.mkdir()
    videos.mkdir()
    WRITERS['activitynet'](source)
    content = json.loads((source / 'train.json').read_text())
    some = next(iter(content.values()))
    odd = [os.fsdecode(b'\xc4\xe3'), 'a\nb', '\ud83d']
    write_ascii(source / 'train.json', {**content, **dict.fromkeys(odd, some)})
    for video_id in [*content, *json.loads((source / 'val_1.json').read_text()), *odd[:2]]:
        (videos / f'{video_id}.mp4').write_bytes(b'x')
    for fraction in ('0', '0.5'):
        done = run_tool('tools/dataset_converters/activitynet.py', source, tmp_path / fraction, '--video-dir', videos,
                        '--dev-fraction', fraction)
        assert done.returncode == 0 and 'LEFT OUT: \\ud83d' in done.stderr, done.stderr
        found = {entry['video_id']: entry['video'] for path in (tmp_path / fraction).glob('*.json')
                 for entry in json.loads(path.read_text())['data_list']}
        assert {video_id: found.get(video_id) for video_id in odd} == {
            odd[0]: f'{odd[0]}.mp4', 'a\nb': 'a\nb.mp4', '\ud83d': None}
        missing, = (tmp_path / fraction / 'missing_videos.txt').read_text().splitlines()
        assert missing.endswith('\t\\ud83d')
