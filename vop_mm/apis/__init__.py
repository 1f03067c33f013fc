"""What a program that uses vop_mm calls."""
from .inference import init_model
from .unknown_words import UnknownWordsWarning

__all__ = ['TextVideoRetriever', 'UnknownWordsWarning', 'init_model']


def __getattr__(name: str):
    if name == 'TextVideoRetriever':  # tools that only train needn't import what searches
        from .text_video_retriever import TextVideoRetriever
        return TextVideoRetriever
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
