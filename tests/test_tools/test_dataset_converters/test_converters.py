"""Converters, run as users run them: on made files of the distributed form, and on the real ones where they are."""
import csv
import json
import pickle
import re
import subprocess
import sys

import pytest

from tests.raw_annotations import WRITERS, msrvtt_data, real, write_json, write_lines, write_vatex
from tests.tools import run_tool
from vop_mm.datasets.annotation import read_annotation

PROTOCOLS = dict(msrvtt='1:1', activitynet='paragraph', didemo='paragraph', lsmdc='1:1', msvd='multi-caption',
                 vatex='multi-caption')


def convert(name, source, out, *args):
    return run_tool(f'tools/dataset_converters/{name}.py', source, out, *args)


def splits(folder):
    """Metainfo and {video id: entry} of every annotation in a folder."""
    files = {path.stem: json.loads(path.read_text()) for path in folder.glob('*.json')}
    return ({split: file['metainfo'] for split, file in files.items()},
            {split: {entry['video_id']: entry for entry in file['data_list']} for split, file in files.items()})


@pytest.fixture
def source(tmp_path):
    (tmp_path / 'source').mkdir()
    return tmp_path / 'source'


# -- what is written ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', WRITERS)
def test_training_dev_and_test_are_apart(name, source, tmp_path):
    WRITERS[name](source)
    done = convert(name, source, tmp_path / 'out', '--dev-fraction', '0.1')
    assert done.returncode == 0, done.stderr
    meta, found = splits(tmp_path / 'out')
    train = 'train_9k' if name == 'msrvtt' else 'train'
    assert set(found) == ({'train_9k', 'train_7k', 'dev', 'test'} if name == 'msrvtt' else {'train', 'dev', 'test'})
    for split in found:
        assert meta[split]['dataset'] == name and meta[split]['split'] == split
        assert read_annotation(str(tmp_path / 'out' / f'{split}.json'))[1]  # what training reads takes it
    assert meta['test']['protocol'] == meta['dev']['protocol'] == PROTOCOLS[name]
    assert not found['dev'].keys() & found[train].keys() and not found['dev'].keys() & found['test'].keys()
    smallest = 'train_7k' if name == 'msrvtt' else 'train'
    assert len(found['dev']) == round(0.1 * (len(found['dev']) + len(found[smallest])))
    assert not found['dev'].keys() & found[smallest].keys()
    again = convert(name, source, tmp_path / 'again', '--dev-fraction', '0.1')
    other = convert(name, source, tmp_path / 'other', '--dev-fraction', '0.1', '--seed', '1')
    assert again.returncode == other.returncode == 0
    assert splits(tmp_path / 'again')[1] == found != splits(tmp_path / 'other')[1]


@pytest.mark.parametrize('name', WRITERS)
def test_the_whole_training_split_of_the_paper(name, source, tmp_path):
    WRITERS[name](source)
    assert convert(name, source, tmp_path / 'held_out', '--dev-fraction', '0.1').returncode == 0
    done = convert(name, source, tmp_path / 'whole', '--dev-fraction', '0')
    assert done.returncode == 0, done.stderr
    held_out, whole = splits(tmp_path / 'held_out')[1], splits(tmp_path / 'whole')[1]
    assert whole.keys() == held_out.keys() - {'dev'} and whole['test'] == held_out['test']
    for split in whole.keys() - {'test'}:
        assert whole[split].keys() == held_out[split].keys() | held_out['dev'].keys() & whole[split].keys()
        assert whole[split].keys() > held_out[split].keys()
    # a dev split that is there would be of training videos
    done = convert(name, source, tmp_path / 'held_out', '--dev-fraction', '0')
    assert done.returncode == 2 and 'dev.json holds videos that --dev-fraction 0 trains on' in done.stderr
    assert splits(tmp_path / 'held_out')[1] == held_out


def test_a_dev_fraction_outside_of_its_range(source, tmp_path):
    for fraction in ('-0.1', '1', 'nan'):
        done = convert('msvd', source, tmp_path / 'out', '--dev-fraction', fraction)
        assert done.returncode == 2 and '--dev-fraction must be between 0 and 1' in done.stderr


def test_msrvtt_captions(source, tmp_path):
    WRITERS['msrvtt'](source)
    assert convert('msrvtt', source, tmp_path / 'out').returncode == 0
    _, found = splits(tmp_path / 'out')
    for video_id, entry in found['train_9k'].items():
        assert entry['captions'] == [f'{video_id} seen {i} times' for i in range(20)]
        assert entry['video'] == f'{video_id}.mp4'
    assert found['test']['video41']['captions'] == ['a test, of video41']
    assert all(len(entry['captions']) == 1 for entry in found['dev'].values())  # as the test split


def test_paragraphs_are_the_sentences_in_the_files_order(source, tmp_path):
    WRITERS['activitynet'](source)
    assert convert('activitynet', source, tmp_path / 'out').returncode == 0
    entry = splits(tmp_path / 'out')[1]['test']['v_00000000041']
    assert entry['captions'] == ['v_00000000041 begins. It goes on with a piñata.']


def test_didemo_is_seen_for_thirty_seconds(source, tmp_path):
    WRITERS['didemo'](source)
    assert convert('didemo', source, tmp_path / 'out').returncode == 0
    entry = splits(tmp_path / 'out')[1]['test']['00000001@N06_test.mp4']
    assert entry == dict(video_id='00000001@N06_test.mp4', video='00000001@N06_test.mp4', start=0., end=30.,
                         captions=['the end of 1 the beginning of 1'])


def test_lsmdc_clips_lie_in_folders_and_repeat(source, tmp_path):
    WRITERS['lsmdc'](source)
    assert convert('lsmdc', source, tmp_path / 'out').returncode == 0
    _, found = splits(tmp_path / 'out')
    clip = '0001_A_Film_00.00.10.000-00.00.10.886'
    entry = (found['train'] | found['dev'])[clip]
    assert entry['video'] == f'0001_A_Film/{clip}.avi'
    assert entry['captions'] == ['SOMEONE says "10.', "He's 10, and leaves."] or clip in found['dev']


@pytest.mark.parametrize('official', [False, True])
def test_vatex_from_both_forms(official, source, tmp_path):
    write_vatex(source, official=official)
    assert convert('vatex', source, tmp_path / 'out').returncode == 0
    _, found = splits(tmp_path / 'out')
    assert len(found['test']) == 5 and len(found['train']) + len(found['dev']) == 40
    assert all(entry['captions'] == [f'vatex {v} {k}' for k in range(10)] for v, entry in found['test'].items())


# -- videos on disk ----------------------------------------------------------------------------------------------------
def test_names_are_those_on_disk_and_what_is_missing_is_named(source, tmp_path):
    WRITERS['activitynet'](source)
    videos = tmp_path / 'videos' / 'sub'
    videos.mkdir(parents=True)
    for i in range(45):
        if i not in (3, 44):
            (videos / f'{"v_" if i % 2 else ""}{i:011d}.{"mkv" if i % 3 else "mp4"}').write_bytes(b'x')
    (videos / 'extra.webm').write_bytes(b'x')
    done = convert('activitynet', source, tmp_path / 'out', '--video-dir', tmp_path / 'videos')
    assert done.returncode == 0 and '43 of the 45' in done.stdout
    meta, found = splits(tmp_path / 'out')
    both = found['train'] | found['dev'] | found['test']
    assert both['v_00000000004']['video'] == 'sub/00000000004.mkv'
    assert both['v_00000000009']['video'] == 'sub/v_00000000009.mp4'
    assert 'v_00000000003' not in both and 'v_00000000044' not in both
    missing = (tmp_path / 'out' / 'missing_videos.txt').read_text().split()
    assert missing[1::2] == ['v_00000000003', 'v_00000000044'] and missing[2] == 'test'
    assert (tmp_path / 'out' / 'unannotated_videos.txt').read_text() == 'sub/extra.webm\n'
    assert meta['test']['missing_videos'] == 1 and 'LEFT OUT: v_00000000044' in done.stderr


# -- what is wrong -----------------------------------------------------------------------------------------------------
BROKEN = [
    ('msvd', lambda s: (s / 'test_list.txt').unlink(), 'lacks test_list.txt'),
    ('msvd', lambda s: write_lines(s / 'train_list.txt', ['-vid0001_1_11', 'x']),
     'captions_msvd.json has no captions of 1 videos that train_list.txt names: x'),
    ('msvd', lambda s: (s / 'captions_msvd.json').write_text('{"a": ['), 'captions_msvd.json: not a JSON file'),
    ('msvd', lambda s: write_lines(s / 'train_list.txt', ['-vid0001_1_11'] * 2), 'duplicate id'),
    ('msvd', lambda s: (s / 'train_list.txt').write_bytes((s / 'test_list.txt').read_bytes()), 'in train and in test'),
    ('lsmdc', lambda s: write_lines(s / 'LSMDC16_challenge_1000_publictect.csv', ['a\tb']), 'expected 6 columns'),
    ('msrvtt', lambda s: write_lines(s / 'MSRVTT_train.9k.csv', ['id', 'video1']), "no column 'video_id'"),
    ('msrvtt', lambda s: write_json(s / 'MSRVTT_data.json', msrvtt_data(['video0'])), 'has no captions of'),
]


@pytest.mark.parametrize('name, spoil, says', BROKEN)
def test_nothing_is_written_on_an_error(name, spoil, says, source, tmp_path):
    WRITERS[name](source)
    spoil(source)
    done = convert(name, source, tmp_path / 'out')
    assert done.returncode == 1 and says in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'out').exists()


def test_an_error_leaves_what_was_there(source, tmp_path):
    WRITERS['msvd'](source)
    assert convert('msvd', source, tmp_path / 'out').returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()}
    (tmp_path / 'empty').mkdir()
    done = convert('msvd', source, tmp_path / 'out', '--video-dir', tmp_path / 'empty')
    assert done.returncode == 1 and 'it holds no videos' in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()} == before


def test_msvd_of_clip4clip_is_a_pickle_and_the_message_makes_json_of_it(source, tmp_path):
    WRITERS['msvd'](source)
    captions = json.loads((source / 'captions_msvd.json').read_text())
    (source / 'captions_msvd.json').unlink()
    (source / 'raw-captions.pkl').write_bytes(pickle.dumps(
        {video_id: [text.split() for text in texts] for video_id, texts in captions.items()}))
    done = convert('msvd', source, tmp_path / 'out')
    assert done.returncode == 1 and 'raw-captions.pkl is a pickle, which can run programs' in done.stderr, done.stderr
    assert not (tmp_path / 'out').exists()
    command = re.search('python -c ".*"', done.stderr)[0].replace('python', sys.executable, 1)
    subprocess.run(command, shell=True, cwd=source, check=True)
    assert json.loads((source / 'captions_msvd.json').read_text()) == captions
    assert convert('msvd', source, tmp_path / 'out').returncode == 0


def test_msvd_reads_json_where_the_pickle_lies_beside_it(source, tmp_path):
    WRITERS['msvd'](source)
    (source / 'raw-captions.pkl').write_bytes(b'whatever')
    assert convert('msvd', source, tmp_path / 'out').returncode == 0
    (source / 'raw-captions.pkl').unlink()
    (source / 'captions_msvd.json').unlink()
    assert 'lacks captions_msvd.json' in convert('msvd', source, tmp_path / 'other').stderr


# -- the real files ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name, counts', [
    ('activitynet', dict(train=(10_009, 10_009), test=(4_917, 4_917))),
    ('lsmdc', dict(test=(1_000, 1_000))),
    ('msvd', dict(train=(1_200, 48_774), test=(670, 27_763))),
])
def test_counts_of_the_real_files(name, counts, tmp_path):
    done = convert(name, real(name), tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert 'differ from those of published results' not in done.stderr
    _, found = splits(tmp_path / 'out')
    for split, expected in counts.items():
        entries = {**found[split], **(found['dev'] if split == 'train' else {})}
        assert (len(entries), sum(len(entry['captions']) for entry in entries.values())) == expected


def test_counts_of_msrvtts_real_lists(source, tmp_path):
    """Its sentences are too large to be at hand: made ones stand in for them."""
    folder, ids = real('msrvtt'), []
    for path in folder.glob('*.csv'):
        (source / path.name).write_bytes(path.read_bytes())
        if 'train' in path.name:
            ids += [row['video_id'] for row in csv.DictReader(path.open())]
    write_json(source / 'MSRVTT_data.json', msrvtt_data(list(dict.fromkeys(ids)), captions_each=2))
    done = convert('msrvtt', source, tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    _, found = splits(tmp_path / 'out')
    dev = len(found['dev'])
    assert (len(found['train_9k']) + dev, len(found['train_7k']) + dev, len(found['test'])) == (9_000, 7_010, 1_000)
    assert len({entry['captions'][0] for entry in found['test'].values()}) == 995
