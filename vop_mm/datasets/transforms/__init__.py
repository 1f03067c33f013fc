"""Transforms between annotation and model: read a clip, augment it, tokenize captions, pack the sample.

Cropping and flipping come from mmaction2, with a prefixed name (``mmaction.CenterCrop``).
"""
import mmaction.datasets.transforms  # noqa: F401 - registers the transforms with the prefix mmaction

from .formatting import PackVideoText
from .pipeline import Pipeline, split_pipeline
from .read_clip import ReadClip
from .resizing import ResizeFrames, short_side_size
from .sampling import clip_moments, clip_range, sample_frames, sample_moments
from .text import TokenizeText
from .tokenizers import CLIPTokenizer, HFTokenizer, WordTokenizer, tokenizer_config

__all__ = [
    'CLIPTokenizer', 'HFTokenizer', 'PackVideoText', 'Pipeline', 'ReadClip', 'ResizeFrames', 'TokenizeText',
    'WordTokenizer', 'clip_moments', 'clip_range', 'sample_frames', 'sample_moments', 'short_side_size',
    'split_pipeline', 'tokenizer_config'
]
