"""The vectors of an index: damaged bytes, and other kinds of FAISS index than those that this project writes."""
import contextlib
import random
from pathlib import Path

import faiss
import numpy as np

from vop_mm.search import SearchIndex

from ..harness import Case, Kind
from ..mutate import mutate_bytes
from ..world import QUERY, World, check_hits, compare_hits, connect, get, put


def prepare(world: World) -> None:
    world.hits  # noqa: B018 - made now


def make(rng: random.Random, world: World, folder: Path) -> Case:
    index = world.copy_index(folder)
    file = index / 'vectors.faiss'
    kind = rng.choice(('bytes', 'bytes', 'bytes', 'other', 'other', 'grouped bytes'))
    with contextlib.closing(connect(index)) as db:
        dim = get(db, 'settings')['dim']
        rows = db.execute('SELECT id, vector FROM clips ORDER BY id').fetchall()
        ids, vectors = np.array([row[0] for row in rows]), np.stack([np.frombuffer(row[1], '<f4') for row in rows])
        if kind == 'grouped bytes':  # an index in clusters, as large collections have
            put(db, 'backend', dict(get(db, 'backend'), exact_up_to=1))
    damaged = kind != 'other'
    if damaged:
        if kind == 'grouped bytes':
            faiss.write_index(_ivf(dim, vectors, ids), str(file))
        content, about = mutate_bytes(rng, file.read_bytes(), head=120)
        file.write_bytes(content)
    else:
        about = _other(rng, world, folder, file, dim, vectors, ids)
    door = rng.choice(('search', 'search', 'update'))
    return Case(f'{kind}: {about}; {door}', ('index', 'vectors.faiss'), dict(door=door, damaged=damaged))


def _ivf(dim: int, vectors: np.ndarray, ids: np.ndarray, metric: int = faiss.METRIC_INNER_PRODUCT, lists: int = 4):
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, metric)
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add_with_ids(vectors, ids)
    return index


def _other(rng: random.Random, world: World, folder: Path, file: Path, dim: int, vectors: np.ndarray,
           ids: np.ndarray) -> str:
    """Write an index of another kind in place of the file."""
    kind = rng.choice(('on disk', 'on disk', 'pca', 'hnsw', 'binary', 'l2', 'dim', 'count', 'fewer', 'numbers', 'nan',
                       'scaled', 'factory', 'factory', 'id map 2', 'refine', 'shuffled', 'empty', 'untrained',
                       'direct map'))
    flat = faiss.IndexIDMap(faiss.IndexFlatIP(dim))
    made = flat
    if kind == 'on disk':
        made = _ivf(dim, vectors, ids)
        lists = faiss.OnDiskInvertedLists(4, made.code_size, str(folder / 'lists'))
        made.replace_invlists(lists, True)
        lists.this.disown()
        made.add_with_ids(vectors, ids + 1000)
        faiss.write_index(made, str(file))
        # names the file of somebody else; as long as before, so that the lengths in the file stay right
        old = str(folder / 'lists').encode()
        new = str(rng.choice((world.canary / 'victim.txt', world.canary / 'new'))).encode()
        content = file.read_bytes()
        place = content.index(old)
        file.write_bytes(content[:place - 8] + len(new).to_bytes(8, 'little') + new + content[place + len(old):])
        return f'{kind} {new.decode()}'
    if kind == 'binary':
        made = faiss.IndexBinaryFlat(dim)
        made.add(np.zeros((len(ids), dim // 8), np.uint8))
        faiss.write_index_binary(made, str(file))
        return kind
    if kind == 'factory':
        name = rng.choice(('PCA8,Flat', 'OPQ4,IVF2,Flat', 'SQ8', 'PQ4x4', 'LSH', 'HNSW8', 'IVF2,PQ4x4',
                           'IVF2_HNSW4,Flat', 'IDMap,PCA8,Flat', 'IDMap2,Flat', 'L2norm,Flat', 'IVF2,SQ8', 'NSG8',
                           'RR16,Flat', 'Pad128,Flat', 'IDMap,HNSW8', 'IVF2,Flat,RFlat', 'ITQ8,LSH', 'ZnLattice3x10_6'))
        with contextlib.suppress(Exception):  # too few vectors for some
            made = faiss.index_factory(dim, name, rng.choice((faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2)))
            made.train(vectors)
            made.add_with_ids(vectors, ids) if 'IDMap' in name else made.add(vectors)
        kind = f'factory {name}'
    elif kind == 'pca':
        made = faiss.IndexPreTransform(faiss.LinearTransform(dim, dim), faiss.IndexIDMap(faiss.IndexFlatIP(dim)))
        made.chain.at(0).is_trained = True
        faiss.copy_array_to_vector(np.eye(dim, dtype=np.float32).ravel() * 5, faiss.downcast_VectorTransform(
            made.chain.at(0)).A)
        with contextlib.suppress(Exception):
            made.add_with_ids(vectors, ids)
    elif kind == 'hnsw':
        made = faiss.IndexIDMap(faiss.IndexHNSWFlat(dim, 8, faiss.METRIC_INNER_PRODUCT))
        made.add_with_ids(vectors, ids)
    elif kind == 'l2':
        made = rng.choice((faiss.IndexIDMap(faiss.IndexFlatL2(dim)), faiss.IndexIDMap(faiss.IndexFlat(dim, 23))))
        made.add_with_ids(vectors, ids)
    elif kind == 'dim':
        other = rng.choice((1, dim - 1, dim + 1, 2 * dim))
        made = faiss.IndexIDMap(faiss.IndexFlatIP(other))
        made.add_with_ids(np.zeros((len(ids), other), np.float32), ids)
    elif kind in ('count', 'fewer'):
        chosen = np.concatenate([ids] * 3) if kind == 'count' else ids[:2]
        made.add_with_ids(np.concatenate([vectors] * 3) if kind == 'count' else vectors[:2], chosen)
    elif kind == 'numbers':
        made.add_with_ids(vectors, rng.choice((ids * 0, -ids, ids + 2**62, ids - 2**62, ids[::-1].copy())))
    elif kind in ('nan', 'scaled'):
        made.add_with_ids(vectors * np.float32(rng.choice((np.nan, np.inf, 1e30)) if kind == 'nan' else 7), ids)
    elif kind == 'shuffled':
        made.add_with_ids(vectors[::-1].copy(), ids)
    elif kind == 'id map 2':
        made = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        made.add_with_ids(vectors, ids)
    elif kind == 'refine':
        made = faiss.IndexRefineFlat(faiss.IndexFlatIP(dim))
        made.add(vectors)
    elif kind == 'untrained':
        made = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, 4, faiss.METRIC_INNER_PRODUCT)
    elif kind == 'direct map':
        made = _ivf(dim, vectors, ids, lists=2)
        made.set_direct_map_type(faiss.DirectMap.Hashtable)
    faiss.write_index(made, str(file))
    return kind


def target(world: World, folder: Path, case: Case) -> None:
    index = folder / 'index'
    if case.options['door'] == 'update':
        world.searcher.build_index(folder / 'videos', index, prompts='good')
    hits = world.searcher.search(QUERY, index, 50, prompts='good', merge=False)
    with contextlib.closing(SearchIndex(index)) as search_index:
        check_hits(hits, search_index.videos)
    # whatever lies there, what is found is what the catalogue holds
    compare_hits(world, hits)


KINDS = [Kind('faiss', make, target, prepare)]
