"""Metrics that can be named in configs."""
from .retrieval_metric import RetrievalMetric

__all__ = ['RetrievalMetric']
