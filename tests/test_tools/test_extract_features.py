"""tools/extract_features.py: features in parts, and the index that takes them in."""
import json
import os
import shutil
import signal
import sqlite3

import numpy as np
import pytest

from tests.checkpoints import demo_config, write_checkpoint
from tests.tools import obey_permissions, run_tool
from vop_mm.search import Catalogue, SearchIndex

SHARDS = 5


@pytest.fixture(scope='module')
def folder(small_demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp('features')
    cfg = demo_config('vop/vop_demo.py')
    (folder / 'config.py').write_text(cfg.pretty_text)
    write_checkpoint(folder / 'a.pth', cfg, 0)
    shutil.copytree(small_demo / 'videos', folder / 'videos')
    (folder / 'videos' / 'bad.mp4').write_text('<html>')
    return folder


def extract(folder, out, rank, world_size, *args, names=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), permissions=None):
    def before():
        if permissions is not None:
            permissions()
        os.environ.update(zip(names, (str(rank), str(world_size), '0')))
    return run_tool('tools/extract_features.py', 'videos', out, '--config', 'config.py', '--checkpoint', 'a.pth',
                    '--shards', SHARDS, '--window', '2', *args, before=before, cwd=folder)


def merge_parts(folder, out, index):
    return run_tool('tools/index_videos.py', 'videos', index, '--features', out, cwd=folder)


def vectors(index):
    rows = sqlite3.connect(index / 'catalogue.db').execute(
        'SELECT path, start, vector FROM clips JOIN files ON files.id = clips.file').fetchall()
    return {row[:2]: np.frombuffer(row[2], '<f4') for row in rows}


def test_two_ranks_and_one_give_the_same_index(folder):
    assert extract(folder, 'one', 0, 1).returncode == 0
    first = extract(folder, 'two', 0, 2)
    assert first.returncode == 0 and 'process 0 of 2: 3 parts' in first.stdout, first.stderr
    early = merge_parts(folder, 'two', 'index_two')
    assert early.returncode == 1 and 'contains 3 of 5 parts' in early.stderr
    slurm = 'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'
    assert 'process 1 of 2: 2 parts' in extract(folder, 'two', 1, 2, names=slurm).stdout
    for out in ('one', 'two'):
        done = merge_parts(folder, out, f'index_{out}')
        assert done.returncode == 0 and "'bad.mp4': " in done.stdout, done.stderr
    done = run_tool('tools/index_videos.py', 'videos', 'index_direct', '--config', 'config.py', '--checkpoint', 'a.pth',
                    '--window', '2', cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = vectors(folder / 'index_direct')
    assert len(expected) > len(list((folder / 'videos').iterdir()))  # windows
    for index in ('index_one', 'index_two'):
        found = vectors(folder / index)
        assert found.keys() == expected.keys()
        for key, vector in found.items():
            np.testing.assert_allclose(vector, expected[key], atol=1e-5)
    direct, taken_in = (
        json.loads(run_tool('tools/search.py', index, 'a red square', '--json', cwd=folder).stdout)
        for index in ('index_direct', 'index_two'))
    assert [hit['path'] for hit in direct] == [hit['path'] for hit in taken_in] and len(direct) == 5

    # nothing is encoded twice, whatever the number of processes; what changed reaches the index
    names = sorted(os.listdir(folder / 'videos'))
    (folder / 'videos' / names[3]).unlink()
    again = [extract(folder, 'two', rank, 3) for rank in range(3)]
    assert all(done.returncode == 0 and '0 encoded now' in ' '.join(done.stdout.split()) for done in again)
    done = merge_parts(folder, 'two', 'index_two')
    assert '0 added, 0 changed, 1 removed' in done.stdout, done.stderr
    gone = os.fsencode(names[3])
    assert vectors(folder / 'index_two').keys() == {key for key in expected if key[0] != gone}


def test_a_part_that_was_killed_is_not_taken_in_and_goes_on(folder):
    def die():  # in the middle of the sixth file
        real, calls = Catalogue.put_file, []

        def put_file(self, *args, **kwargs):
            calls.append(args)
            real(self, *args, **kwargs)
            if len(calls) == 6:
                os.kill(os.getpid(), signal.SIGKILL)
        Catalogue.put_file = put_file

    command = ('tools/extract_features.py', 'videos', 'killed', '--config', 'config.py', '--checkpoint', 'a.pth',
               '--shards', '1', '--batch-size', '1')
    assert run_tool(*command, before=die, cwd=folder).returncode == -signal.SIGKILL
    files = SearchIndex(folder / 'killed' / 'part_0_of_1').catalogue.files()
    assert len(files) == 5
    early = merge_parts(folder, 'killed', 'index_killed')
    assert early.returncode == 1 and 'part_0_of_1 is not finished' in early.stderr, early.stderr
    assert not (folder / 'index_killed').exists()
    done = run_tool(*command, cwd=folder)
    known = sum(state.error is None for state in files.values())
    clips = len(os.listdir(folder / 'videos')) - 1
    assert f'{clips} clips, {clips - known} encoded now' in ' '.join(done.stdout.split()), done.stdout
    assert f'{clips} added' in merge_parts(folder, 'killed', 'index_killed').stdout
    search = run_tool('tools/search.py', 'killed/part_0_of_1', 'a', cwd=folder)
    assert search.returncode == 1 and 'contains extracted features: make an index of all parts' in search.stderr


def test_bad_input_is_one_line(folder, tmp_path):
    (tmp_path / 'out' / 'part_0_of_9').mkdir(parents=True)
    (tmp_path / 'locked').mkdir(mode=0o500)
    for done, message in ((extract(folder, tmp_path / 'out', 0, 1), 'contains features in another number of parts'),
                          (extract(folder, 'new', 0, 9), '5 shards for 9 processes'),
                          (extract(folder, tmp_path / 'locked' / 'out', 0, 1, permissions=obey_permissions),
                           'Permission denied'),
                          (run_tool('tools/extract_features.py', 'videos', 'new', '--config', 'config.py', cwd=folder),
                           'config.py trains: name the checkpoint to encode with'),
                          (merge_parts(folder, 'nothing', 'new'), 'contains 0 of no parts')):
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert sum(line.startswith('error: ') for line in done.stderr.splitlines()) == 1
    assert not (folder / 'new').exists()
