"""From a benchmark's files as they are distributed to this project's annotations.

Needs nothing but the standard library until files are looked for: tools/dataset_converters are quick to answer.
"""
from .converter import Benchmark, convert
from .dev_split import hold_out
from .source import ConversionError, Source, captions_of, field, paragraph
from .video_files import VideoFiles

__all__ = [
    'Benchmark', 'ConversionError', 'Source', 'VideoFiles', 'captions_of', 'convert', 'field', 'hold_out',
    'paragraph'
]
