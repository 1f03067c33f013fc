"""Building and searching an index of made vectors with cluster structure, per back end, beside exact search."""
import argparse
import time
from pathlib import Path

import numpy as np

_PART = 100_000
_RECALL, _P50_MS = 0.95, 10
BACKENDS = {
    'faiss': dict(type='FaissIndex'),
    'faiss-exact': dict(type='FaissIndex', exact_up_to=2**62),
    'milvus-lite': dict(type='MilvusIndex'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument('--num', type=int, default=1_000_000, help='vectors (default: 1000000)')
    parser.add_argument('--dim', type=int, default=512, help='values of a vector (default: 512)')
    parser.add_argument('--queries', type=int, default=500, help='asked one by one (default: 500)')
    parser.add_argument('--backends', nargs='+', choices=BACKENDS, default=['faiss', 'faiss-exact'],
                        help='default: faiss faiss-exact')
    parser.add_argument('--milvus-uri', metavar='URI', help='of a server, in place of a Milvus Lite file')
    parser.add_argument('--seed', type=int, default=0, help='default: 0')


def run(args: argparse.Namespace) -> list[dict]:
    """Measure; rows as benchmark.py prints them."""
    import multiprocessing
    import tempfile

    if min(args.num, args.dim, args.queries) < 1:
        raise ValueError('--num, --dim and --queries must be at least 1')
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        vectors, queries = make_vectors(folder / 'vectors.npy', args.num, args.dim, args.queries, args.seed)
        truth = nearest(vectors, queries, min(10, args.num))
        rows = []
        for name in args.backends:
            backend = dict(BACKENDS[name], folder=str(folder), dim=args.dim)
            if name.startswith('milvus') and args.milvus_uri:
                backend.update(uri=args.milvus_uri, collection='vop_mm_benchmark')
            # a process each: what it holds is the index's
            results = multiprocessing.get_context('fork').Queue()
            process = multiprocessing.get_context('fork').Process(
                target=measure, args=(backend, folder / 'vectors.npy', queries, truth, results))
            process.start()
            process.join()
            if process.exitcode:
                raise RuntimeError(f'{name} failed')
            rows += describe(name, results.get())
        return rows


def make_vectors(path: Path, count: int, dim: int, num_queries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Write unit vectors around random centres, a hundred around each on average; queries are drawn as they are.

    Returns:
        tuple[np.ndarray, np.ndarray]: Mapped vectors float32 [count, dim], and queries [num_queries, dim].
    """
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((max(count // 100, 1), dim), dtype=np.float32))

    def draw(size: int) -> np.ndarray:
        noise = rng.standard_normal((size, dim), dtype=np.float32) * np.float32(0.75 / dim**0.5)
        return _unit(centres[rng.integers(len(centres), size=size)] + noise)

    vectors = np.lib.format.open_memmap(path, 'w+', np.float32, (count, dim))
    for first in range(0, count, _PART):
        vectors[first:first + _PART] = draw(min(_PART, count - first))
    return vectors, draw(num_queries)


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Numbers of the ``k`` nearest vectors of each query, by all products: int64 [Q, k], in any order."""
    scores, numbers = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for first in range(0, len(vectors), _PART):
        part = queries @ vectors[first:first + _PART].T  # [Q, P]
        scores = np.concatenate([scores, part], axis=1)
        here = np.broadcast_to(np.arange(first, first + part.shape[1]), part.shape)
        numbers = np.concatenate([numbers, here], axis=1)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
    return numbers


def measure(backend: dict, path: Path, queries: np.ndarray, truth: np.ndarray, results) -> None:
    """Build an index as a gallery does, ask it one query after another, and put what that took."""
    from vop_mm.registry import INDEXES

    vectors = np.load(path, mmap_mode='r')
    before, start = _held(), time.perf_counter()
    index = INDEXES.build(backend)
    for first in range(0, len(vectors), 10_000):
        index.add(np.arange(first, min(first + 10_000, len(vectors))), vectors[first:first + 10_000])
    index.save()
    built, held = time.perf_counter() - start, _held() - before
    found, times = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(index.search(query[None], truth.shape[1])[1][0])
        times.append(time.perf_counter() - start)
    recall = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth)])
    index.close()
    results.put(dict(built=built, held=held, recall=float(recall), p50=float(np.median(times)) * 1e3,
                     p99=float(np.quantile(times, 0.99)) * 1e3, rate=len(times) / sum(times)))


def describe(name: str, result: dict) -> list[dict]:
    """Rows of the table."""
    return [
        dict(what=f'{name}: building and saving', figure=f'{result["built"]:.0f} s', value=result['built']),
        dict(what=f'{name}: memory of the index', figure=f'{result["held"] / 1e9:.2f} GB', value=result['held']),
        dict(what=f'{name}: recall@10 against exact search', figure=f'{result["recall"]:.4f}', value=result['recall'],
             target=f'at least {_RECALL}', met=result['recall'] >= _RECALL),
        dict(what=f'{name}: one query, p50', figure=f'{result["p50"]:.2f} ms', value=result['p50'],
             target=f'under {_P50_MS} ms', met=result['p50'] < _P50_MS),
        dict(what=f'{name}: one query, p99', figure=f'{result["p99"]:.2f} ms', value=result['p99']),
        dict(what=f'{name}: queries one by one', figure=f'{result["rate"]:.0f}/s', value=result['rate']),
    ]


def _held() -> int:
    """Bytes of this process's own memory, mapped files apart."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.partition('RssAnon:')[2].split()[0])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
