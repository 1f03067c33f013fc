"""Annotation files, the data set, and (in ``transforms``) what happens to a sample."""
from .annotation import read_annotation
from .errors import AnnotationError, TooManyUnreadableVideosError, VideoDecodeError, VideoNotFoundError
from .video_text_dataset import VideoTextDataset

__all__ = [
    'AnnotationError', 'TooManyUnreadableVideosError', 'VideoDecodeError', 'VideoNotFoundError', 'VideoTextDataset',
    'read_annotation'
]
