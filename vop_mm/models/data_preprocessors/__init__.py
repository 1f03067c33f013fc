"""Data preprocessors."""
from .video_text_preprocessor import VideoTextPreprocessor

__all__ = ['VideoTextPreprocessor']
