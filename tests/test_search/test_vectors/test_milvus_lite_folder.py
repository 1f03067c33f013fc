"""Folders of Milvus Lite that somebody else made."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.indexes import unit
from tests.tools import ROOT
from vop_mm.search import MilvusIndex

pytest.importorskip('milvus_lite')
COLLECTION = 'collections/vop_mm'
PART = f'{COLLECTION}/partitions/_default'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'index').mkdir()
    index = MilvusIndex(tmp_path / 'index', 8)
    index.add(range(20), unit(20))
    index.save()
    index.remove([3])
    index.save()
    index.close()
    (tmp_path / 'diary').mkdir()
    (tmp_path / 'diary' / 'monday.txt').write_text('a diary')
    return tmp_path


def link_to_a_folder(database, diary):
    """Milvus Lite removes from it what its lists lack."""
    for path in sorted((database / PART / 'data').iterdir()):
        path.unlink()
    (database / PART / 'data').rmdir()
    (database / PART / 'data').symlink_to(diary)


def manifest(**changes):
    def change(database, diary):
        path = database / COLLECTION / 'manifest.json'
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return change


def graph(database, diary):
    """Of FAISS, with FAISS's reader."""
    for path in (database / PART / 'indexes').iterdir():
        path.rename(str(path).replace('flat', 'hnsw'))


CHANGES = {
    'a link to a folder': link_to_a_folder,
    'a link to a file': lambda database, diary: (database / COLLECTION / 'wal' / 'wal_data_000009.arrow').symlink_to(
        diary / 'monday.txt'),
    'a link to a partition': lambda database, diary: (database / COLLECTION / 'partitions' / 'more').symlink_to(diary),
    'a link for all of it': lambda database, diary: database.rename(diary / 'db') and database.symlink_to(diary / 'db'),
    'a fifo': lambda database, diary: os.mkfifo(database / PART / 'data' / 'data_9_9.parquet'),
    'a graph': graph,
    'another file': lambda database, diary: (database / 'more.so').write_bytes(b''),
    'a partition elsewhere': manifest(partitions={'../../../../../diary': dict(data_files=[], delta_files=[])}),
    'a file elsewhere': manifest(partitions={'_default': dict(data_files=['../../../../../../diary/monday.txt'])}),
    'another kind of index': manifest(index_specs={'vector': dict(
        field_name='vector', index_type='HNSW', metric_type='IP', build_params={}, search_params={})}),
    'lists of another kind': manifest(partitions=[7]),
}


@pytest.mark.parametrize('what', CHANGES)
def test_what_we_do_not_write_is_refused_and_nothing_is_touched(what, folder):
    CHANGES[what](folder / 'index' / 'milvus.db', folder / 'diary')
    before = sorted(folder.rglob('*'))
    with pytest.raises(ValueError, match='milvus.db was not written by this project '):
        MilvusIndex(folder / 'index', 8)
    assert sorted(folder.rglob('*')) == before and 'a diary' in (folder / 'diary' / 'monday.txt').read_text()


def test_what_we_write_is_opened_also_where_it_was_left_in_the_middle(folder):
    database = folder / 'index' / 'milvus.db'
    (database / COLLECTION / 'manifest.json').write_text('{"cut')  # Milvus Lite takes the one before it
    (database / COLLECTION / 'manifest.json.tmp').write_text('{"cut')
    index = MilvusIndex(folder / 'index', 8)
    index.add([50], unit(1, seed=7))
    assert index.search(unit(1, seed=7), 1)[1].tolist() == [[50]]
    index.close()


def test_a_killed_process_leaves_what_is_opened_again(tmp_path):
    code = (f'import os; from tests.indexes import unit; from vop_mm.search import MilvusIndex\n'
            f'index = MilvusIndex({str(tmp_path)!r}, 8); index.add(range(3000), unit(3000)); os._exit(9)')
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=env, timeout=60)
    assert done.returncode == 9
    index = MilvusIndex(tmp_path, 8)
    assert len(index) == 3000
    index.clear()
    index.close()
    index = MilvusIndex(tmp_path, 8)
    assert len(index) == 0
    index.close()


def test_damaged_files_are_one_line(folder):
    for path in (folder / 'index' / 'milvus.db').rglob('*.parquet'):
        path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))
    with pytest.raises(ConnectionError, match='milvus.db'):
        index = MilvusIndex(folder / 'index', 8)
        index.search(unit(1), 3)
