"""Heads: what is kept of captions and videos, and how similar they are."""
from .base import SimilarityHead, mean_of_frames
from .mean_pool_similarity import MeanPoolSimilarity

__all__ = ['MeanPoolSimilarity', 'SimilarityHead', 'mean_of_frames']
