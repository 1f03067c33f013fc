"""FAISS and Milvus Lite against brute force, by the same tests."""
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from vop_mm.registry import INDEXES
from vop_mm.search import FaissIndex

DIM = 24
BACKENDS = {
    'faiss': dict(type='FaissIndex'),
    'faiss_clusters': dict(type='FaissIndex', exact_up_to=50, num_probes=1000),  # all clusters: exact, too
    'milvus_lite': dict(type='MilvusIndex'),
}


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == 'milvus_lite':
        pytest.importorskip('milvus_lite')
    return BACKENDS[request.param]


def unit(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def check(index, contents):
    """The index finds what brute force finds in ``{number: vector}``."""
    assert len(index) == len(contents)
    numbers, vectors = np.array(list(contents)), np.stack(list(contents.values()))
    queries = unit(5, seed=9)
    scores, found = index.search(queries, 7)
    expected = queries @ vectors.T
    np.testing.assert_array_equal(found, numbers[np.argsort(-expected, axis=1)[:, :7]])
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :7], atol=1e-5)


def test_vectors_are_added_replaced_removed_and_kept(backend, tmp_path):
    index = INDEXES.build(dict(backend, folder=str(tmp_path), dim=DIM))
    assert len(index) == 0
    vectors = unit(400)
    contents = {}
    for first, last in ((0, 30), (30, 200), (200, 400)):
        numbers = range(7 * first, 7 * last, 7)
        index.add(numbers, vectors[first:last])
        contents.update(zip(numbers, vectors[first:last]))
        check(index, contents)
    index.add([0, 14, 5000], unit(3, seed=1))  # two of them are there
    contents.update(zip([0, 14, 5000], unit(3, seed=1)))
    index.remove([7, 21, 6000])  # one of them isn't
    for number in (7, 21):
        del contents[number]
    check(index, contents)
    index.save()
    index.close()
    again = INDEXES.build(dict(backend, folder=str(tmp_path), dim=DIM))
    check(again, contents)
    again.clear()
    assert len(again) == 0
    again.add([3], vectors[:1])
    scores, found = again.search(vectors[:1], 4)
    assert found.tolist() == [[3, -1, -1, -1]] and scores[0, 0] == pytest.approx(1, abs=1e-5)
    again.close()
    with pytest.raises(ValueError, match=f'vectors (have|of) ({DIM}|{DIM + 1}) values'):
        INDEXES.build(dict(backend, folder=str(tmp_path), dim=DIM + 1))


def test_clusters_are_found_anew_as_the_index_grows():
    index = FaissIndex('nowhere', DIM, exact_up_to=100, num_probes=1000)
    sizes = []
    for step in range(10):
        index.add(range(100 * step, 100 * step + 100), unit(100, seed=step))
        sizes.append(getattr(index._index, 'nlist', 0))
    assert sizes[0] == 0 and 0 < sizes[1] < sizes[-1] and len(set(sizes)) == 3
    check(index, dict(enumerate(np.concatenate([unit(100, seed=step) for step in range(10)]))))


def test_few_probes_find_most():
    rng = np.random.default_rng(0)
    centers = unit(100, seed=1)
    vectors = centers[rng.integers(0, 100, 20_000)] + 0.1 * rng.standard_normal((20_000, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FaissIndex('nowhere', DIM, exact_up_to=1000, num_probes=16)
    index.add(range(len(vectors)), vectors)
    queries = vectors[:100]
    exact = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    found = index.search(queries, 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found)]) > 0.95


def test_queries_that_lie_apart_find_most():
    """As texts do: far from all vectors, a little nearer to the right ones."""
    rng = np.random.default_rng(0)
    vectors = unit(300, seed=1)[rng.integers(0, 300, 30_000)] + 0.1 * unit(30_000, seed=2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FaissIndex('nowhere', DIM)
    index.add(range(len(vectors)), vectors)
    queries = 0.3 * vectors[:200] + 0.67 * unit(1, seed=3) + 0.67 * unit(200, seed=4)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    exact = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    found = index.search(queries, 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found)]) > 0.95


def test_a_damaged_file_is_named(tmp_path):
    index = FaissIndex(tmp_path, DIM)
    index.add(range(10), unit(10))
    index.save()
    file = tmp_path / 'vectors.faiss'
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match='vectors.faiss is damaged'):
        FaissIndex(tmp_path, DIM)


def test_a_milvus_that_can_not_be_reached(tmp_path):
    pytest.importorskip('pymilvus')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=f'Milvus at http://127.0.0.1:{port} cannot be reached'):
        INDEXES.build(dict(type='MilvusIndex', folder=str(tmp_path), dim=DIM, uri=f'http://127.0.0.1:{port}',
                           timeout=2))


def test_milvus_lite_says_nothing_when_a_decoder_is_forked(tmp_path):
    """gRPC's preparations for a fork print a line when its threads are busy, and have crashed what was forked."""
    pytest.importorskip('milvus_lite')
    code = f'''
import os
import numpy as np
from vop_mm.search import MilvusIndex
index = MilvusIndex({str(tmp_path)!r}, 4)
index.add([1, 2], np.eye(2, 4))
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
index.close()
'''
    env = {key: value for key, value in os.environ.items() if key != 'GRPC_ENABLE_FORK_SUPPORT'}
    # Python 3.12 warns of every fork beside threads
    done = subprocess.run([sys.executable, '-W', 'ignore::DeprecationWarning', '-c', code], capture_output=True,
                          text=True, env=env)
    assert done.returncode == 0 and 'fork' not in done.stderr, done.stderr


@pytest.mark.parametrize('closed', [False, True])
def test_milvus_says_so_where_it_was_used_before_a_fork(tmp_path, closed):
    """gRPC would wait there for ever, for threads that a fork does not take along."""
    pytest.importorskip('milvus_lite')
    for name in 'ab':
        (tmp_path / name).mkdir()
    code = f'''
import os, signal
from vop_mm.search import MilvusIndex
index = MilvusIndex({str(tmp_path / 'a')!r}, 4)
if {closed}:
    index.close()
if os.fork() == 0:
    signal.alarm(20)
    MilvusIndex({str(tmp_path / 'b')!r}, 4)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and 'ConnectionError: Milvus hangs in a process' in done.stderr, done.stderr
