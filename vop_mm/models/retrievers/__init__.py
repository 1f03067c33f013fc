"""Retrievers."""
from .text_video_retriever import TextVideoRetriever

__all__ = ['TextVideoRetriever']
