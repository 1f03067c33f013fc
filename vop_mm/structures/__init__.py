"""Data structures that carry samples through model and metric."""
from .video_text_data_sample import VideoTextDataSample

__all__ = ['VideoTextDataSample']
