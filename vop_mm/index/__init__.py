"""Search index: vectors, the catalog that they can be rebuilt from, and indexing of video folders."""
from .catalogue import Catalogue
from .faiss_index import FaissIndex
from .features import take_in, take_in_features
from .gallery import Gallery, IndexMismatchError
from .hit import Hit
from .indexing import IndexReport, index_folder
from .milvus_index import MilvusIndex
from .remote_indexing import list_videos
from .vector_index import VectorIndex
from .windows import cut_windows

__all__ = [
    'Catalogue', 'FaissIndex', 'Gallery', 'Hit', 'IndexMismatchError', 'IndexReport', 'MilvusIndex', 'VectorIndex',
    'cut_windows', 'index_folder', 'list_videos', 'take_in', 'take_in_features'
]
