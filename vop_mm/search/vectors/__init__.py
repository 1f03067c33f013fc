"""Vector indexes: FAISS in a file, Milvus on a server."""
from .faiss_index import FaissIndex
from .milvus_index import MilvusIndex
from .vector_index import DamagedVectorsError, VectorIndex, check_vectors

__all__ = ['DamagedVectorsError', 'FaissIndex', 'MilvusIndex', 'VectorIndex', 'check_vectors']
