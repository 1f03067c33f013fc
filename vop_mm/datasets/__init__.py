"""Annotation files, datasets, video decoding, and the transforms applied to each sample."""
from .annotation import read_annotation
from .errors import (
    AnnotationError,
    DamagedStoreError,
    FrameStoreError,
    TooManyUnreadableVideosError,
    VideoDecodeError,
    VideoNotFoundError,
)
from .frame_store import FrameStore, FrameStoreWriter
from .tar_video_text_dataset import TarVideoTextDataset
from .video_source import VideoSource
from .video_text_dataset import VideoTextDataset

__all__ = [
    'AnnotationError', 'DamagedStoreError', 'FrameStore', 'FrameStoreError', 'FrameStoreWriter', 'TarVideoTextDataset',
    'TooManyUnreadableVideosError', 'VideoDecodeError', 'VideoNotFoundError', 'VideoSource', 'VideoTextDataset',
    'read_annotation'
]
