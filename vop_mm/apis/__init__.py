"""High-level API of vop_mm."""
from .inference import init_model
from .unknown_words import UnknownWordsWarning

__all__ = ['TextVideoRetriever', 'UnknownWordsWarning', 'init_model']


def __getattr__(name: str):
    if name == 'TextVideoRetriever':  # lazy: tools that only train need not import the search code
        from .text_video_retriever import TextVideoRetriever
        return TextVideoRetriever
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
