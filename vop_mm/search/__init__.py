"""Search for moments in videos: the index on disk, indexing, prompt sets on one backbone, the searcher, a web page."""
from .build import index_folder, merge_features
from .catalogue import Catalogue
from .hit import Hit
from .indexing import IndexOptions, IndexReport
from .remote_indexing import list_videos
from .search_index import IndexMismatchError, SearchIndex
from .unknown_words import UnknownWordsWarning
from .vectors import FaissIndex, MilvusIndex, VectorIndex
from .windows import cut_windows

__all__ = [
    'Catalogue', 'FaissIndex', 'Hit', 'IndexMismatchError', 'IndexOptions', 'IndexReport', 'MilvusIndex', 'SearchIndex',
    'UnknownWordsWarning', 'VectorIndex', 'VideoSearcher', 'cut_windows', 'index_folder', 'list_videos',
    'merge_features'
]


def __getattr__(name: str):
    if name == 'VideoSearcher':  # lazy: an index can be opened without a model
        from .video_searcher import VideoSearcher
        return VideoSearcher
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
