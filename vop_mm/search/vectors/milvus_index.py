"""Milvus vector index: a file of this process (Milvus Lite), or a server."""
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vop_mm.registry import INDEXES

from .milvus_lite_folder import check_lite_folder
from .vector_index import VectorIndex, check_vectors

_TOKEN = 'VOP_MM_MILVUS_TOKEN'
_BATCH = 1000  # rows per request; servers refuse messages of more than 64 MB
_MAX_K = 16384  # Milvus's own limit
_URI = re.compile(r'https?://[^\s/@]+(/\w*)?', re.ASCII)  # pymilvus takes anything else for a Milvus Lite file
_COLLECTION = re.compile(r'[A-Za-z_]\w{0,254}', re.ASCII)
_INDEX_TYPES = ('AUTOINDEX', 'FLAT', 'IVF_FLAT', 'IVF_SQ8', 'IVF_PQ', 'HNSW', 'SCANN', 'DISKANN')
_MAX_TIMEOUT = 3600
_LITE_FILES = Counter()  # number of indexes in this process that have a Milvus Lite file open
_process = None  # process that uses gRPC: a process forked from it inherits locks that are never released


@INDEXES.register_module()
class MilvusIndex(VectorIndex):
    """A Milvus collection. Servers that require authentication get ``$VOP_MM_MILVUS_TOKEN`` (``user:password``).

    A Milvus Lite file can be open in only one process at a time. Milvus Lite (3.2) iterates over the ids of all vectors
    in Python for each query, with any index type, so no index would make it fast: search is exact.

    Args:
        folder (str | Path): Folder of ``milvus.db``, used without ``uri``.
        dim (int): D.
        uri (str, optional): ``http://host:19530`` of a server or cluster. None: Milvus Lite. Defaults to None.
        collection (str): Name of the collection. Defaults to ``'vop_mm'``.
        index_type (str, optional): Milvus index type. None: ``'AUTOINDEX'``, which lets the server choose, and
            ``'FLAT'`` for Milvus Lite, the only type allowed there. Defaults to None.
        timeout (float): Time limit in seconds for connecting. Defaults to 10.

    Raises:
        ConnectionError: The server can't be reached or refuses, the file is open in another process, or this process
            was forked from one that used Milvus.
    """

    adjustable = frozenset(('timeout', ))

    def __init__(self, folder: str | Path, dim: int, uri: str | None = None, collection: str = 'vop_mm',
                 index_type: str | None = None, timeout: float = 10.) -> None:
        if uri is not None and not (isinstance(uri, str) and _URI.fullmatch(uri) and not uri.endswith('.db')):
            raise ValueError(f'a Milvus address must be http://host:port, got {uri!r:.200}')
        if not (isinstance(collection, str) and _COLLECTION.fullmatch(collection)):
            raise ValueError(f'invalid name of a Milvus collection: {collection!r:.200}')
        if index_type is not None and index_type not in (_INDEX_TYPES if uri else ('FLAT', )):
            raise ValueError(f'unsupported Milvus index type: {index_type!r:.200}')
        if not 0 < timeout <= _MAX_TIMEOUT:
            raise ValueError(f'timeout must be above 0 and at most {_MAX_TIMEOUT} seconds, got {timeout}')
        # gRPC reads this when it is loaded. Decoding processes are forked and don't use it; its fork handlers print a
        # line whenever its threads are busy, and crashed processes that fork themselves.
        os.environ.setdefault('GRPC_ENABLE_FORK_SUPPORT', 'false')
        try:
            import pymilvus
            if uri is None:
                import milvus_lite  # noqa: F401
        except ImportError as e:
            raise ImportError(f'{e.name} is not installed (pip install pymilvus milvus-lite)') from None
        self._pymilvus, self._is_lite = pymilvus, uri is None
        self.uri = uri or str(Path(folder).absolute() / 'milvus.db')
        self.dim, self.collection = dim, collection
        self.index_type = index_type or ('FLAT' if self._is_lite else 'AUTOINDEX')
        self._client = None
        try:
            self._connect(timeout)
        except BaseException:
            self.close()
            raise

    def _connect(self, timeout: float) -> None:
        global _process
        if _process not in (None, os.getpid()):
            raise ConnectionError('Milvus hangs in a process forked from one that used it: start the process with '
                                  "multiprocessing's 'spawn'")
        _process = os.getpid()
        collection, dim = self.collection, self.dim
        if self._is_lite:
            if not _LITE_FILES[self.uri]:
                check_lite_folder(self.uri)
            _LITE_FILES[self.uri] += 1
        with self._asking('opened: another process may have it open' if self._is_lite else 'reached'):
            token = '' if self._is_lite else os.environ.get(_TOKEN, '')
            self._client = self._pymilvus.MilvusClient(self.uri, token=token, timeout=timeout)
            if not self._client.has_collection(collection):
                self._create()
            self._client.load_collection(collection)
            fields = self._client.describe_collection(collection)['fields']
        found = next((field['params'].get('dim') for field in fields if field['name'] == 'vector'), None)
        if found is None or int(found) != dim:
            raise ValueError(f'the collection {collection} at {self.uri} does not contain vectors of {dim} values')

    def add(self, ids: Sequence[int], vectors: np.ndarray) -> None:
        if np.shape(vectors) != (len(ids), self.dim):
            raise ValueError(f'expected {len(ids)} vectors of {self.dim} values, got {np.shape(vectors)}')
        check_vectors(np.asarray(vectors, np.float32), self.dim)
        with self._asking():
            for first in range(0, len(ids), _BATCH):
                rows = [dict(id=int(i), vector=np.asarray(v, np.float32))
                        for i, v in zip(ids[first:first + _BATCH], vectors[first:first + _BATCH])]
                self._client.upsert(self.collection, rows)

    def remove(self, ids: Sequence[int]) -> None:
        ids = [int(i) for i in ids]
        with self._asking():
            for first in range(0, len(ids), _BATCH):
                self._client.delete(self.collection, ids=ids[first:first + _BATCH])

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        ids = np.full((len(vectors), k), -1, np.int64)
        with self._asking():
            found = self._client.search(self.collection, list(np.asarray(vectors, np.float32)), limit=min(k, _MAX_K),
                                        output_fields=['id'], consistency_level='Strong')
        for row, hits in enumerate(found):
            scores[row, :len(hits)] = [hit['distance'] for hit in hits]
            ids[row, :len(hits)] = [hit['id'] for hit in hits]
        return scores, ids

    def save(self) -> None:
        with self._asking():
            self._client.flush(self.collection)

    def clear(self) -> None:
        with self._asking():
            self._client.drop_collection(self.collection)
            self._create()
            self._client.load_collection(self.collection)

    def __len__(self) -> int:
        with self._asking():
            return self._client.query(self.collection, '', output_fields=['count(*)'],
                                      consistency_level='Strong')[0]['count(*)']

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        if self._is_lite and self.uri in _LITE_FILES:
            _LITE_FILES[self.uri] -= 1
            if _LITE_FILES[self.uri] <= 0:  # closing a client doesn't close its file
                from milvus_lite.server_manager import server_manager_instance
                server_manager_instance.release_server(self.uri)
                del _LITE_FILES[self.uri]
        self._client, self._is_lite = None, False

    def _create(self) -> None:
        types, client = self._pymilvus.DataType, self._client
        schema = client.create_schema(auto_id=False)
        schema.add_field('id', types.INT64, is_primary=True)
        schema.add_field('vector', types.FLOAT_VECTOR, dim=self.dim)
        indexes = client.prepare_index_params()
        indexes.add_index('vector', index_type=self.index_type, metric_type='IP')
        client.create_collection(self.collection, schema=schema, index_params=indexes)

    @contextmanager
    def _asking(self, what: str = 'used') -> Iterator[None]:
        levels = {name: logging.getLogger(name).level for name in ('pymilvus', 'milvus_lite')}
        for name in levels:  # they also log what is raised
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            yield
        except self._pymilvus.MilvusException as e:
            raise ConnectionError(f'Milvus at {self.uri} cannot be {what} ({e.message})') from None
        except Exception as e:
            if not self._is_lite:
                raise
            # its server runs in this process and raises various errors for a damaged file
            raise ConnectionError(f'Milvus Lite cannot read {self.uri} ({type(e).__name__})') from None
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
