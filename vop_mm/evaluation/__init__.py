"""Ranks and metrics: pure functions and a thin MMEngine metric on top of them."""
from .functional import retrieval_metrics
from .metrics import RetrievalMetric

__all__ = ['RetrievalMetric', 'retrieval_metrics']
