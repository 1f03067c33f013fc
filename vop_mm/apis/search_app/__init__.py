"""The web page of search. It needs gradio, which nothing else here imports."""
from .collection import Collection, Found, open_collections

__all__ = ['Collection', 'Found', 'open_collections']
