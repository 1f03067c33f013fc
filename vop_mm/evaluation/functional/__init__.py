"""Ranks and metrics as pure functions of a similarity matrix."""
from .retrieval import (
    pair_accuracy,
    rank_metrics,
    retrieval_metrics,
    retrieval_ranks,
    similarity_matrix,
    text_to_video_ranks,
    video_to_text_ranks,
)

__all__ = [
    'pair_accuracy', 'rank_metrics', 'retrieval_metrics', 'retrieval_ranks', 'similarity_matrix',
    'text_to_video_ranks', 'video_to_text_ranks'
]
