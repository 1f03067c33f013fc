"""Files of vectors that somebody else made, or that a disk changed: FAISS's reader gets none but what we write."""
import hashlib
import os
import struct
from contextlib import closing

import faiss
import numpy as np
import pytest

from tests.indexes import DIM, found, make_index, unit
from vop_mm.search import FaissIndex, SearchIndex
from vop_mm.search.vectors.faiss_file import read_vectors, write_vectors
from vop_mm.search.vectors.vector_index import DamagedVectorsError

COUNT = 40


def flat(vectors=None, numbers=None, inner=None):
    vectors = unit(COUNT) if vectors is None else vectors
    index = faiss.IndexIDMap(inner or faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors, np.arange(1, len(vectors) + 1) if numbers is None else numbers)
    return index


def clusters(vectors=None, lists=4, kind=faiss.IndexIVFFlat, quantizer=None, *args):
    vectors = unit(COUNT) if vectors is None else vectors
    index = kind(quantizer or faiss.IndexFlatIP(DIM), DIM, lists, *args, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(1, len(vectors) + 1))
    return index


@pytest.mark.parametrize('make', [flat, clusters, lambda: clusters(unit(3), 3), lambda: clusters(lists=40)],
                         ids=['flat', 'clusters', 'few', 'mostly empty'])
def test_what_we_write_is_read(make, tmp_path):
    index = make()
    queries = unit(5, seed=1)
    write_vectors(index, tmp_path / 'vectors.faiss')
    found = read_vectors(tmp_path / 'vectors.faiss', DIM).search(queries, 3)
    for mine, expected in zip(found, index.search(queries, 3)):
        np.testing.assert_array_equal(mine, expected)
    plain = faiss.read_index(str(tmp_path / 'vectors.faiss'))  # the checksum stands behind what FAISS reads
    assert plain.ntotal == index.ntotal


def test_lists_on_disk_that_name_a_file_of_the_user(tmp_path):
    """FAISS opens such a file to write, and does when an index grows."""
    victim = tmp_path / 'victim.txt'
    victim.write_bytes(b'a diary\n' * 200_000)
    before = hashlib.md5(victim.read_bytes()).hexdigest(), victim.stat().st_mtime_ns
    vectors = make_index(tmp_path / 'index', tmp_path, COUNT)
    index = clusters(vectors)
    lists = faiss.OnDiskInvertedLists(4, DIM * 4, str(tmp_path / 'lists'))
    lists.merge_from_1(index.invlists)
    index.replace_invlists(lists)
    content = faiss.serialize_index(index).tobytes()
    name = struct.pack('<Q', len(str(tmp_path / 'lists'))) + str(tmp_path / 'lists').encode()
    assert content.count(name) == 1
    content = content.replace(name, struct.pack('<Q', len(str(victim))) + str(victim).encode())
    (tmp_path / 'index' / 'vectors.faiss').write_bytes(content)
    assert found(tmp_path / 'index', vectors[3])[0] == '3.mp4'
    with closing(SearchIndex(tmp_path / 'index')) as search_index, search_index.locked():
        search_index.repair()
        search_index.synchronize()
    assert (hashlib.md5(victim.read_bytes()).hexdigest(), victim.stat().st_mtime_ns) == before
    assert read_vectors(tmp_path / 'index' / 'vectors.faiss', DIM).ntotal == COUNT


OTHERS = {
    'another metric': lambda: faiss.IndexIDMap(faiss.IndexFlatL2(DIM)),
    'no numbers': lambda: faiss.IndexFlatIP(DIM),
    'other numbers': lambda: faiss.IndexIDMap2(faiss.IndexFlatIP(DIM)),
    'a graph': lambda: faiss.IndexIDMap(faiss.IndexHNSWFlat(DIM, 4, faiss.METRIC_INNER_PRODUCT)),
    'rounded': lambda: faiss.IndexIDMap(faiss.IndexScalarQuantizer(
        DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)),
    'a transformation before it': lambda: faiss.IndexPreTransform(
        faiss.RandomRotationMatrix(DIM, DIM), faiss.IndexFlatIP(DIM)),
    'an index in an index': lambda: faiss.IndexIDMap(faiss.IndexIDMap(faiss.IndexFlatIP(DIM))),
    'clusters of clusters': lambda: clusters(quantizer=clusters(unit(COUNT), 4)),
    'clusters of another metric': lambda: faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, 4),
    'a map of places': lambda: mapped(),
    'another length': lambda: flat(unit(COUNT, DIM + 1)),
    'no index': lambda: None,
}


def mapped():
    index = clusters()
    index.reset()
    index.add(unit(COUNT))
    index.make_direct_map()
    return index


@pytest.mark.parametrize('what', OTHERS)
def test_other_kinds_are_refused_before_faiss_reads_them(what, tmp_path, monkeypatch):
    index = OTHERS[what]()
    path = tmp_path / 'vectors.faiss'
    path.write_bytes(b'#!/bin/sh' if index is None else faiss.serialize_index(index).tobytes())
    monkeypatch.setattr(faiss, 'read_index', None)
    with pytest.raises(DamagedVectorsError, match='vectors.faiss is damaged'):
        FaissIndex(tmp_path, DIM)


@pytest.mark.parametrize('make', [flat, clusters], ids=['flat', 'clusters'])
def test_numbers_that_lie_are_noticed_before_memory_is_taken(make, tmp_path, monkeypatch):
    """Each of the first bytes is made large in its turn, and each cut is tried."""
    write_vectors(make(), tmp_path / 'vectors.faiss')
    content = (tmp_path / 'vectors.faiss').read_bytes()
    monkeypatch.setattr(faiss, 'read_index', lambda *args: pytest.fail('FAISS was asked'))
    # what nobody reads: fields without a use, and of clusters how many are looked at; behind the heads are vectors
    unused = {*range(16, 32), *(range(53, 69) if make is flat else (*range(45, 53), *range(69, 85)))}
    refused = 0
    for place in range(90):
        changed = bytearray(content)
        changed[place] ^= 0xff
        (tmp_path / 'vectors.faiss').write_bytes(changed)
        try:
            read_vectors(tmp_path / 'vectors.faiss', DIM)
        except ValueError:
            refused += 1
        except BaseException:  # pytest.fail: of bytes that don't matter, or of vectors, which the checksum is for
            assert place in unused or (make is flat and place >= 82), place
    assert refused > 40
    for size in [*range(0, 100, 7), len(content) // 2, len(content) - 17, len(content) - 16, len(content) - 1]:
        (tmp_path / 'vectors.faiss').write_bytes(content[:size])
        with pytest.raises(ValueError):
            read_vectors(tmp_path / 'vectors.faiss', DIM)


@pytest.mark.parametrize('make', [flat, clusters], ids=['flat', 'clusters'])
def test_every_flipped_bit_is_noticed(make, tmp_path):
    write_vectors(make(), tmp_path / 'vectors.faiss')
    content = (tmp_path / 'vectors.faiss').read_bytes()
    for place in range(0, 8 * len(content), 47):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        (tmp_path / 'vectors.faiss').write_bytes(changed)
        with pytest.raises(ValueError):
            read_vectors(tmp_path / 'vectors.faiss', DIM)


def test_a_large_file_is_summed_in_the_same_blocks_when_written_and_read(tmp_path):
    """Blocks that change places are noticed as well."""
    write_vectors(flat(unit(10_000, 64)), tmp_path / 'v')
    assert read_vectors(tmp_path / 'v', 64).ntotal == 10_000
    content = bytearray((tmp_path / 'v').read_bytes())
    block = 1 << 20
    content[block // 2:block], content[block:block * 3 // 2] = content[block:block * 3 // 2], content[block // 2:block]
    (tmp_path / 'v').write_bytes(content)
    with pytest.raises(ValueError, match='wrong checksum'):
        read_vectors(tmp_path / 'v', 64)


WRONG = {
    'flipped': lambda path, vectors: flip(path),
    'of other clips': lambda path, vectors: write_vectors(flat(vectors[::-1].copy()), path),
    'too few': lambda path, vectors: write_vectors(flat(vectors[:30]), path),
    'too many': lambda path, vectors: write_vectors(flat(np.concatenate([vectors, unit(9)])), path),
    'scaled': lambda path, vectors: write_vectors(flat(2 * vectors), path),
    'of an older version, with no checksum': lambda path, vectors: faiss.write_index(flat(vectors), str(path)),
    'with numbers of other clips': lambda path, vectors: write_vectors(
        flat(vectors, np.roll(np.arange(1, COUNT + 1), 1)), path),
    'not finite': lambda path, vectors: write_vectors(flat(np.full_like(vectors, np.inf)), path),
    'a link': lambda path, vectors: path.rename(path.parents[1] / 'v') and path.symlink_to(path.parents[1] / 'v'),
}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


@pytest.mark.parametrize('what', WRONG)
def test_a_search_is_right_all_the_same_and_indexing_mends_it(what, tmp_path, caplog):
    vectors = make_index(tmp_path / 'index', tmp_path, COUNT)
    path = tmp_path / 'index' / 'vectors.faiss'
    WRONG[what](path, vectors)
    kept = path.read_bytes(), os.listdir(tmp_path)
    for number in (3, 31):
        assert found(tmp_path / 'index', vectors[number], COUNT)[0] == f'{number}.mp4'
        assert len(found(tmp_path / 'index', vectors[number], COUNT)) == COUNT
    assert {record.getMessage().count('the vectors of the catalog in memory') for record in caplog.records} == {1}
    assert all('\n' not in record.getMessage() for record in caplog.records)
    assert (path.read_bytes(), os.listdir(tmp_path)) == kept  # a search writes nothing
    with closing(SearchIndex(tmp_path / 'index')) as search_index, search_index.locked():
        if not search_index._is_stand_in:
            search_index.search(vectors[3])
        search_index.repair()
        search_index.synchronize()
    caplog.clear()
    assert found(tmp_path / 'index', vectors[31])[0] == '31.mp4' and not caplog.records
    assert not path.is_symlink() and len(read_vectors(path, DIM).search(vectors, 1)[1]) == COUNT


@pytest.mark.parametrize('vectors', [np.full((2, DIM), np.nan), np.full((2, DIM), np.inf), np.full((2, DIM), 1e30),
                                     np.zeros((2, DIM))], ids=['nan', 'inf', 'huge', 'zero'])
def test_vectors_that_nothing_would_find_are_not_taken(vectors, tmp_path):
    index = FaissIndex(tmp_path, DIM)
    with pytest.raises(ValueError, match='an embedding (is not finite|has norm)'):
        index.add([1, 2], vectors)
    assert len(index) == 0
