"""Web page for search. Requires gradio, which is not imported anywhere else."""
from .collection import Collection, Found, open_collections

__all__ = ['Collection', 'Found', 'open_collections']
