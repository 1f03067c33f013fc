"""Heads: frame embeddings to video embeddings, and similarities."""
from .mean_pool_similarity import MeanPoolSimilarity

__all__ = ['MeanPoolSimilarity']
