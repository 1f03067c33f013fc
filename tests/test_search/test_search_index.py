"""Indexes that are made at the same time, that name servers, or that somebody else led elsewhere."""
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing

import numpy as np
import pytest

from tests.indexes import DIM, change, found, make_index, unit
from tests.tools import ROOT
from vop_mm.search import SearchIndex

SETTINGS = dict(dim=DIM, prompts='a, b')
FAISS = dict(type='FaissIndex')


@pytest.fixture
def server():
    """Address of a server that is no Milvus, and a list of what it is sent."""
    received, listening = [], socket.create_server(('127.0.0.1', 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.settimeout(1)
            received.append(b'')  # a connection alone is too much
            try:
                connection.sendall(b'\0\0\0\4\0\0\0\0\0')  # settings of HTTP/2, so that the client goes on
                while part := connection.recv(4096):
                    received.append(part)
            except OSError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{listening.getsockname()[1]}', received
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def says_milvus(index, uri, **more):
    """The index says that its vectors are in a Milvus."""
    import json
    backend = json.dumps(dict(type='MilvusIndex', uri=uri, timeout=1, **more))
    change(index, f"UPDATE meta SET value = '{backend}' WHERE key = 'backend'")


@pytest.mark.parametrize('uri', ['{}', '{}/', '{}/default'])
def test_a_server_that_an_index_names_is_not_talked_to(server, uri, tmp_path, monkeypatch):
    """Nor is it sent a password that is for another one."""
    address, received = server
    monkeypatch.setenv('VOP_MM_MILVUS_TOKEN', 'root:my-secret-password')
    monkeypatch.setenv('VOP_MM_MILVUS_URI', 'http://127.0.0.1:9')
    make_index(tmp_path / 'index', tmp_path)
    says_milvus(tmp_path / 'index', uri.format(address))
    for call in (lambda: SearchIndex(tmp_path / 'index'),
                 lambda: SearchIndex(tmp_path / 'index', dict(type='MilvusIndex'))):
        with pytest.raises(ConnectionError, match=re.escape(f'names the server {uri.format(address)!r}')
                           + ', which is not trusted.*VOP_MM_MILVUS_URI'):
            call()
    assert not received


@pytest.mark.parametrize('how', ['environment', 'argument'])
def test_a_server_that_the_user_names_is(server, how, tmp_path, monkeypatch):
    pytest.importorskip('pymilvus')
    address, received = server
    if how == 'environment':
        monkeypatch.setenv('VOP_MM_MILVUS_URI', f'http://127.0.0.1:9 {address}')
    make_index(tmp_path / 'index', tmp_path)
    says_milvus(tmp_path / 'index', address)
    with pytest.raises(ConnectionError, match='cannot be reached'):
        SearchIndex(tmp_path / 'index', None if how == 'environment' else dict(type='MilvusIndex', uri=address))
    assert received


@pytest.mark.parametrize('more, message', [
    *((dict(uri=uri), 'a Milvus address must be')
      for uri in ('other.db', 'unix:/a.sock', 'http://a/../b.db', 'http://a/b.db', 'file:///a', 'http://a@b')),
    (dict(uri=None, collection='../../a'), 'name of a Milvus collection'),
    (dict(uri=None, collection=''), 'name of a Milvus collection'),
    (dict(uri=None, index_type='HNSW'), 'unsupported Milvus index'),
    (dict(uri='http://b', index_type='X'), 'unsupported Milvus index'),
    (dict(uri=None, timeout=0), 'timeout'), (dict(uri=None, timeout=1e99), 'timeout')])
def test_what_is_no_milvus_is_refused(more, message, tmp_path, monkeypatch):
    if more['uri']:
        monkeypatch.setenv('VOP_MM_MILVUS_URI', more['uri'])  # even then
    make_index(tmp_path / 'index', tmp_path)
    import json
    backend = json.dumps(dict(dict(type='MilvusIndex'), **more))
    change(tmp_path / 'index', f"UPDATE meta SET value = '{backend}' WHERE key = 'backend'")
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match=message):
        SearchIndex(tmp_path / 'index')
    assert sorted(tmp_path.rglob('*')) == before


def test_two_that_make_an_index_at_the_same_time(tmp_path):
    """One makes it; the others are told, or find it made. Nothing is mixed or left."""
    code = f'''
import sys
sys.path.insert(0, {str(ROOT)!r})
import tests.indexes
from pathlib import Path
from tests.indexes import *
print('ready', flush=True)
for _ in sys.stdin:
    try:
        make_index(Path({str(tmp_path)!r}) / 'index', Path('/videos'), int(sys.argv[1]))
        print('made', flush=True)
    except BlockingIOError as e:
        print('told', e, flush=True)
'''
    processes = [subprocess.Popen([sys.executable, '-c', code, str(count)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True) for count in (300, 301)]
    assert [process.stdout.readline() for process in processes] == ['ready\n'] * 2
    for _ in range(3):
        for process in processes:
            process.stdin.write('\n')
            process.stdin.flush()
        said = [process.stdout.readline().strip() for process in processes]
        assert 'made' in said and all(
            line == 'made' or line == f'told another process is changing the index {tmp_path}/index' for line in said)
        with closing(SearchIndex(tmp_path / 'index')) as search_index:
            assert len(search_index.vectors) == search_index.catalogue.num_clips() in (300, 301)
        assert sorted(os.listdir(tmp_path / 'index')) == ['catalogue.db', 'lock', 'vectors.faiss']
        for name in os.listdir(tmp_path / 'index'):
            (tmp_path / 'index' / name).unlink()
        (tmp_path / 'index').rmdir()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]


def test_an_index_that_is_being_made_is_not_removed_by_another_that_fails(tmp_path):
    """And a folder that holds something else stays as it is."""
    from vop_mm.utils.locks import locked
    (tmp_path / 'index').mkdir()
    with locked(tmp_path / 'index' / 'lock', ''), pytest.raises(BlockingIOError, match='another process is changing'):
        SearchIndex.create(tmp_path / 'index', tmp_path, SETTINGS, FAISS)
    assert os.listdir(tmp_path / 'index') == ['lock']
    SearchIndex.create(tmp_path / 'index', tmp_path, SETTINGS, FAISS).close()
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'a.txt').write_text('a')
    with pytest.raises(FileExistsError, match='is not a search index'):
        SearchIndex.create(tmp_path / 'other', tmp_path, SETTINGS, FAISS)
    assert os.listdir(tmp_path / 'other') == ['a.txt']


def test_leftovers_of_killed_runs_are_removed_by_the_next_and_those_of_living_ones_stay(tmp_path):
    vectors = make_index(tmp_path / 'index', tmp_path)
    for _ in range(2):
        if os.fork() == 0:  # killed while vectors are written
            search_index = SearchIndex(tmp_path / 'index')
            with search_index.locked():
                import faiss
                faiss.write_index = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
                search_index.synchronize()
        os.wait()
    left = [name for name in os.listdir(tmp_path / 'index') if name.endswith('.tmp')]
    assert left
    from vop_mm.utils.files import atomic_path
    with atomic_path(tmp_path / 'index' / 'report.json') as living:
        with closing(SearchIndex(tmp_path / 'index')) as search_index, search_index.locked():
            assert [name for name in os.listdir(tmp_path / 'index') if name.endswith('.tmp')] == [living.name]
    assert found(tmp_path / 'index', vectors[2])[0] == '2.mp4'


def test_a_lock_that_is_a_link_is_not_opened(tmp_path):
    """It was emptied: opened to be written."""
    make_index(tmp_path / 'index', tmp_path)
    victim = tmp_path / 'victim.txt'
    victim.write_text('a diary')
    for target in (victim, tmp_path / 'new.txt'):
        (tmp_path / 'index' / 'lock').unlink()
        (tmp_path / 'index' / 'lock').symlink_to(target)
        with closing(SearchIndex(tmp_path / 'index')) as search_index, pytest.raises(OSError):
            with search_index.locked():
                pass
    assert victim.read_text() == 'a diary' and not (tmp_path / 'new.txt').exists()


@pytest.mark.parametrize('name', ['vectors.faiss', 'report.json'])
def test_vectors_are_not_written_through_a_link(name, tmp_path):
    vectors = make_index(tmp_path / 'index', tmp_path)
    victim = tmp_path / 'victim.txt'
    victim.write_text('a diary')
    (tmp_path / 'index' / 'vectors.faiss').unlink()
    (tmp_path / 'index' / 'vectors.faiss').symlink_to(victim)
    with closing(SearchIndex(tmp_path / 'index')) as search_index, search_index.locked():
        search_index.repair()
        search_index.synchronize()
    assert victim.read_text() == 'a diary' and found(tmp_path / 'index', vectors[4])[0] == '4.mp4'


@pytest.mark.parametrize('query', [np.full(DIM, np.nan), np.full(DIM, np.inf), np.zeros(DIM), unit(1, DIM + 1)[0]],
                         ids=['nan', 'inf', 'zero', 'of another length'])
def test_a_query_that_finds_nothing_is_refused(query, tmp_path):
    """A broken model's, which found nothing without a word."""
    make_index(tmp_path / 'index', tmp_path)
    with closing(SearchIndex(tmp_path / 'index')) as search_index, pytest.raises(
            ValueError, match='embedding|vectors of'):
        search_index.search(query)


def test_a_catalogue_that_lost_clips_is_not_searched_without_a_word(tmp_path):
    """Of a damaged page SQLite makes rows of nothing."""
    vectors = make_index(tmp_path / 'index', tmp_path)
    assert found(tmp_path / 'index', vectors[3], 1) == ['3.mp4']
    change(tmp_path / 'index', 'UPDATE clips SET id = 99, file = 1 WHERE id = 4')
    with pytest.raises(ValueError, match='catalogue.db is not a catalog of this project, or is damaged'):
        found(tmp_path / 'index', vectors[3], 1)


def test_clips_that_are_being_removed_are_left_out(tmp_path):
    vectors = make_index(tmp_path / 'index', tmp_path)
    with (closing(SearchIndex(tmp_path / 'index')) as search_index,
          closing(SearchIndex(tmp_path / 'index')) as writer):
        assert len(search_index.search(vectors[3], 12)) == 12
        with writer.locked(), writer.catalogue.transaction():
            writer.catalogue.remove_file('3.mp4')
        assert len(search_index.search(vectors[3], 12)) == 11  # noted, and not told to the index of vectors
        with writer.locked():
            writer.synchronize()
        assert len(search_index.search(vectors[3], 12)) == 11  # told, and this one has the old vectors


def test_a_hit_that_would_lie_elsewhere_is_refused(tmp_path):
    vectors = make_index(tmp_path / 'index', tmp_path / 'videos')
    for path in ('../secret.mp4', '/etc/passwd'):
        change(tmp_path / 'index', f"UPDATE files SET path = CAST('{path}' AS BLOB), checksum = NULL WHERE id = 3")
        with pytest.raises(ValueError, match='catalogue.db .*is outside of the video folder'):
            found(tmp_path / 'index', vectors[2])


def test_an_index_in_whose_place_another_one_was_put_is_not_changed(tmp_path):
    make_index(tmp_path / 'index', tmp_path)
    make_index(tmp_path / 'other', tmp_path, 3)
    with closing(SearchIndex(tmp_path / 'index')) as search_index:
        os.replace(tmp_path / 'other' / 'catalogue.db', tmp_path / 'index' / 'catalogue.db')
        before = (tmp_path / 'index' / 'catalogue.db').read_bytes()
        with pytest.raises(OSError, match='the index was replaced by another one'), search_index.locked():
            pass
    assert (tmp_path / 'index' / 'catalogue.db').read_bytes() == before
