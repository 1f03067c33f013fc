"""What happens to a sample between annotation and model: open, sample, decode, resize, tokenise, pack.

Cropping, flipping and decoding are mmaction2's, by prefixed name (``mmaction.DecordDecode``).
"""
import mmaction.datasets.transforms  # noqa: F401 - registers the transforms with the prefix mmaction

from .cached_frames import FramesToStore, LoadCachedFrames, split_pipeline
from .formatting import PackVideoText
from .isolation import IsolatedDecode
from .opening import OpenVideo, OpenVideoTorchCodec, clip_range
from .resizing import ResizeFrames, short_side_size
from .sampling import SampleSegments, random_indices, uniform_indices
from .text import TokenizeText
from .tokenizers import CLIPTokenizer, WordTokenizer

__all__ = [
    'CLIPTokenizer', 'FramesToStore', 'IsolatedDecode', 'LoadCachedFrames', 'OpenVideo', 'OpenVideoTorchCodec',
    'PackVideoText', 'ResizeFrames', 'SampleSegments', 'TokenizeText', 'WordTokenizer', 'clip_range', 'random_indices',
    'short_side_size', 'split_pipeline', 'uniform_indices'
]
