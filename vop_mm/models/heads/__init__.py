"""Heads: which features of captions and videos are kept, and how their similarity is computed."""
from .base import SimilarityHead, mean_of_frames
from .mean_pool_similarity import MeanPoolSimilarity

__all__ = ['MeanPoolSimilarity', 'SimilarityHead', 'mean_of_frames']
