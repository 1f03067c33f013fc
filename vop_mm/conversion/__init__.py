"""Conversion of a benchmark's original files to this project's annotations.

Only the standard library is needed until videos are searched, so that tools/dataset_converters respond quickly.
"""
from .converter import Benchmark, convert
from .dev_split import hold_out
from .source import ConversionError, Source, captions_of, field, paragraph
from .video_files import VideoFiles

__all__ = [
    'Benchmark', 'ConversionError', 'Source', 'VideoFiles', 'captions_of', 'convert', 'field', 'hold_out',
    'paragraph'
]
