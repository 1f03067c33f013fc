"""Search: an index of vectors, the catalogue that it can be rebuilt from, and a folder's way into both."""
from .catalogue import Catalogue
from .faiss_index import FaissIndex
from .features import take_in, take_in_features
from .gallery import Gallery, Hit, IndexMismatchError
from .indexing import IndexReport, find_videos, index_folder
from .milvus_index import MilvusIndex
from .vector_index import VectorIndex
from .windows import cut_windows

__all__ = [
    'Catalogue', 'FaissIndex', 'Gallery', 'Hit', 'IndexMismatchError', 'IndexReport', 'MilvusIndex', 'VectorIndex',
    'cut_windows', 'find_videos', 'index_folder', 'take_in', 'take_in_features'
]
