"""The demo's clips: deterministic, twins are each other's reverse, one right video per test caption, splits apart."""
import json
import os
import subprocess
import sys
from pathlib import Path

import decord
import pytest

TOOL = Path(__file__).parents[2] / 'tools/data/make_demo.py'
COUNTS = ['--num-train', '40', '--num-dev', '26', '--num-test', '60']


def make(*args, **kwargs):
    return subprocess.run([sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True, **kwargs)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo') / 'data'
    done = make(out, *COUNTS)
    assert done.returncode == 0, done.stderr
    return out


def items(demo, split):
    return json.loads((demo / f'{split}.json').read_text())['data_list']


def frames(demo, item):
    return decord.VideoReader(str(demo / 'videos' / item['video']), num_threads=1)[:].asnumpy()


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_annotations_are_of_the_data_sets_form(demo):
    from vop_mm.datasets.annotation import read_annotation
    for split, count, captions in (('train', 40, 2), ('dev', 26, 1), ('test', 60, 1)):
        metainfo, entries = read_annotation(str(demo / f'{split}.json'))
        assert (metainfo['dataset'], metainfo['split']) == ('demo', split)
        assert len(entries) == count and all(len(entry['captions']) == captions for entry in entries)
        assert {entry['kind'] for entry in entries} == {'move', 'grow', 'turn', 'then', 'relation'}


def test_same_settings_same_bytes(demo, tmp_path):
    assert make(tmp_path / 'again', *COUNTS, '--workers', 1).returncode == 0
    assert content(tmp_path / 'again') == content(demo)


def test_other_seed_other_clips(demo, tmp_path):
    assert make(tmp_path / 'other', *COUNTS, '--seed', 2).returncode == 0
    assert items(tmp_path / 'other', 'test') != items(demo, 'test')


def test_second_run_reuses_and_repairs(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob('*')}
    done = make(demo, *COUNTS)
    assert done.returncode == 0 and 'nothing to do' in done.stdout
    assert {path: path.stat().st_mtime_ns for path in demo.rglob('*')} == before
    expected = content(demo)
    (demo / 'videos' / items(demo, 'test')[3]['video']).unlink()
    assert make(demo, *COUNTS).returncode == 0
    assert content(demo) == expected
    assert sorted(path.name for path in demo.parent.iterdir()) == ['data']  # nothing is left beside


def test_frames_decode_and_twins_are_the_reverse(demo):
    by_id = {item['video_id']: item for item in items(demo, 'test')}
    for item in by_id.values():
        clip = frames(demo, item)
        assert clip.shape == (36, 64, 64, 3)
        if item['kind'] == 'relation':
            assert 'twin' not in item
            continue
        twin = by_id[item['twin']]
        assert twin['twin'] == item['video_id'] and twin['kind'] == item['kind']
        reverse = frames(demo, twin)[::-1].astype(int)
        assert abs(clip - reverse).mean() < 3  # of 255: what the codec loses, and other light
        assert abs(clip - reverse[::-1]).mean() > 2 * abs(clip - reverse).mean()


def test_the_models_frames_are_the_same_in_a_clip_and_its_reverse():
    from vop_mm.datasets.transforms.sampling import sample_frames
    indices = sample_frames(36, 12)
    assert (indices == 35 - indices[::-1]).all()


def test_captions_have_one_right_video(demo):
    for split in ('dev', 'test'):
        captions = [item['captions'][0] for item in items(demo, split)]
        assert len(set(captions)) == len(captions)


def test_splits_share_no_clip(demo):
    seen = {}
    for split in ('train', 'dev', 'test'):
        for item in items(demo, split):
            key = frames(demo, item).tobytes()
            assert seen.setdefault(key, item['video_id']) == item['video_id']


def test_too_many_clips_is_one_line(tmp_path):
    done = make(tmp_path / 'data', '--num-test', 5000)
    assert done.returncode == 1 and done.stderr.startswith('error:') and 'not enough different scenes' in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('kind', ['file', 'full folder', 'below a file', 'read-only'])
def test_bad_out_dir_is_one_line(tmp_path, kind):
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'thesis.txt').write_text('mine')
    (tmp_path / 'closed').mkdir()
    (tmp_path / 'closed').chmod(0o500)
    if kind == 'read-only' and os.access(tmp_path / 'closed', os.W_OK):
        out = '/proc/demo'  # root writes anywhere else
    else:
        places = {'file': 'file', 'full folder': 'full', 'below a file': 'file/data', 'read-only': 'closed/data'}
        out = tmp_path / places[kind]
    before = content(tmp_path)
    done = make(out, *COUNTS)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and 'Traceback' not in done.stderr
    assert len(done.stderr.splitlines()) == 2  # and where to look for more
    assert content(tmp_path) == before
