"""Building and searching an index of synthetic vectors with clusters, per back end, compared with exact search.

Queries are searched one by one: queries with the same distribution as the vectors, like embeddings of videos, and
queries that are far from all vectors, like embeddings of texts.
"""
import argparse
import time
from pathlib import Path

import numpy as np

_BATCH = 100_000
_RECALL, _P50_MS = 0.95, 10
_APART = 0.3  # cosine of a far query with its closest content; CLIP's texts and images have 0.2 to 0.35
BACKENDS = {
    'faiss': dict(type='FaissIndex'),
    'faiss-exact': dict(type='FaissIndex', exact_up_to=2**62),
    'milvus-lite': dict(type='MilvusIndex'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument('--num', type=int, default=1_000_000, help='vectors (default: 1000000)')
    parser.add_argument('--dim', type=int, default=512, help='values of a vector (default: 512)')
    parser.add_argument('--queries', type=int, default=500, help='asked one by one (default: 500)')
    parser.add_argument('--backends', nargs='+', choices=BACKENDS, default=['faiss', 'faiss-exact'],
                        help='default: faiss faiss-exact')
    parser.add_argument('--num-probes', type=int, nargs='+', metavar='N', default=[],
                        help='clusters that faiss looks at, each in turn (default: as many as an index does)')
    parser.add_argument('--milvus-uri', metavar='URI', help='of a server, in place of a Milvus Lite file')
    parser.add_argument('--seed', type=int, default=0, help='default: 0')


def run(args: argparse.Namespace) -> list[dict]:
    """Run the benchmark and return the rows of the table."""
    import multiprocessing

    from vop_mm.utils.files import temporary_folder

    if min(args.num, args.dim, args.queries) < 1:
        raise ValueError('--num, --dim and --queries must be at least 1')
    if min(args.num_probes, default=1) < 1:
        raise ValueError('--num-probes must be at least 1')
    with temporary_folder(None, 'benchmark') as folder:
        vectors, queries = make_vectors(folder / 'vectors.npy', args.num, args.dim, args.queries, args.seed)
        asked = {'': queries, ', queries apart': move_apart(queries, args.seed)}
        truth = {kind: nearest(vectors, some, min(10, args.num)) for kind, some in asked.items()}
        rows = []
        for name in args.backends:
            backend = dict(BACKENDS[name], folder=str(folder), dim=args.dim)
            if name.startswith('milvus') and args.milvus_uri:
                backend.update(uri=args.milvus_uri, collection='vop_mm_benchmark')
            # one process each, so that its memory is that of the index
            results = multiprocessing.get_context('fork').Queue()
            process = multiprocessing.get_context('fork').Process(
                target=measure, args=(backend, folder / 'vectors.npy', asked, truth,
                                      args.num_probes if name == 'faiss' else [], results))
            process.start()
            process.join()
            if process.exitcode:
                raise RuntimeError(f'{name} failed')
            rows += describe(name, results.get())
        return rows


def make_vectors(path: Path, count: int, dim: int, num_queries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Write unit vectors around random centers, about a hundred per center, and draw queries likewise.

    Returns:
        tuple[np.ndarray, np.ndarray]: Memory-mapped vectors float32 [count, dim], and queries [num_queries, dim].
    """
    rng = np.random.default_rng(seed)
    centers = _unit(rng.standard_normal((max(count // 100, 1), dim), dtype=np.float32))

    def draw(size: int) -> np.ndarray:
        noise = rng.standard_normal((size, dim), dtype=np.float32) * np.float32(0.75 / dim**0.5)
        return _unit(centers[rng.integers(len(centers), size=size)] + noise)

    vectors = np.lib.format.open_memmap(path, 'w+', np.float32, (count, dim))
    for first in range(0, count, _BATCH):
        vectors[first:first + _BATCH] = draw(min(_BATCH, count - first))
    return vectors, draw(num_queries)


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Find the ``k`` nearest vectors of each query by exhaustive search; returns indices int64 [Q, k], in any order."""
    scores, numbers = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for first in range(0, len(vectors), _BATCH):
        part = queries @ vectors[first:first + _BATCH].T  # [Q, P]
        scores = np.concatenate([scores, part], axis=1)
        here = np.broadcast_to(np.arange(first, first + part.shape[1]), part.shape)
        numbers = np.concatenate([numbers, here], axis=1)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
    return numbers


def move_apart(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return unit vectors [n, D] with a cosine of about 0.3 to the given ones; half of the rest is common to all."""
    rng = np.random.default_rng(seed + 1)
    common, own = (_unit(rng.standard_normal((size, vectors.shape[1]), dtype=np.float32))
                   for size in (1, len(vectors)))
    rest = np.float32(((1 - _APART**2) / 2)**0.5)
    return _unit(np.float32(_APART) * vectors + rest * common + rest * own)


def measure(backend: dict, path: Path, asked: dict[str, np.ndarray], truth: dict[str, np.ndarray],
            num_probes: list[int], results) -> None:
    """Build an index as a search index does, search it query by query, and put the results into a queue."""
    from vop_mm.registry import INDEXES

    vectors = np.load(path, mmap_mode='r')
    start = time.perf_counter()
    index = INDEXES.build(backend)
    before = _held()  # including the libraries
    for first in range(0, len(vectors), 10_000):
        index.add(np.arange(first, min(first + 10_000, len(vectors))), vectors[first:first + 10_000])
    index.save()
    result = dict(built=time.perf_counter() - start, held=_held() - before, asked={})
    for probes in num_probes or [None]:
        if probes is not None:
            index.num_probes = probes
        for kind, queries in asked.items():
            clusters = '' if probes is None else f', {probes} clusters'
            result['asked'][clusters + kind] = ask(index, queries, truth[kind])
    index.close()
    results.put(result)


def ask(index, queries: np.ndarray, truth: np.ndarray) -> dict:
    """Search query by query; returns recall of the truth [Q, k], milliseconds per query, and queries per second."""
    found, times = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(index.search(query[None], truth.shape[1])[1][0])
        times.append(time.perf_counter() - start)
    return dict(recall=float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth)])),
                p50=float(np.median(times)) * 1e3, p99=float(np.quantile(times, 0.99)) * 1e3,
                rate=len(times) / sum(times))


def describe(name: str, result: dict) -> list[dict]:
    """Return the rows of the table."""
    rows = [
        dict(what=f'{name}: building and saving', figure=f'{result["built"]:.0f} s', value=result['built']),
        dict(what=f'{name}: memory of the index', figure=f'{result["held"] / 1e9:.2f} GB', value=result['held']),
    ]
    for kind, of in result['asked'].items():
        rows += [
            dict(what=f'{name}{kind}: recall@10 against exact search', figure=f'{of["recall"]:.4f}', value=of['recall'],
                 target=f'at least {_RECALL}', met=of['recall'] >= _RECALL),
            dict(what=f'{name}{kind}: one query, p50', figure=f'{of["p50"]:.2f} ms', value=of['p50'],
                 target=f'under {_P50_MS} ms', met=of['p50'] < _P50_MS),
            dict(what=f'{name}{kind}: one query, p99', figure=f'{of["p99"]:.2f} ms', value=of['p99']),
            dict(what=f'{name}{kind}: queries one by one', figure=f'{of["rate"]:.3g}/s', value=of['rate']),
        ]
    return rows


def _held() -> int:
    """Return the private memory of this process in bytes, without memory-mapped files."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.partition('RssAnon:')[2].split()[0])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
