"""Annotation files, the data set, and (in ``transforms``) what happens to a sample."""
from .annotation import read_annotation
from .errors import AnnotationError, FrameStoreError, TooManyUnreadableVideosError, VideoDecodeError, VideoNotFoundError
from .frame_store import FrameStore, FrameStoreWriter
from .video_text_dataset import VideoTextDataset

__all__ = [
    'AnnotationError', 'FrameStore', 'FrameStoreError', 'FrameStoreWriter', 'TooManyUnreadableVideosError',
    'VideoDecodeError', 'VideoNotFoundError', 'VideoTextDataset', 'read_annotation'
]
