"""Metrics that can be named in configs."""
from .gallery_metric import Gallery, GalleryMetric
from .retrieval_metric import RetrievalMetric

__all__ = ['Gallery', 'GalleryMetric', 'RetrievalMetric']
