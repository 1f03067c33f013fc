"""Ranks and metrics as pure functions of a similarity matrix."""
from .blocks import FeatureRows, similarity_matrix
from .bootstrap import bootstrap_intervals
from .evaluate import POSTPROCESSING, check_postprocess, evaluate_retrieval
from .postprocessing import dual_softmax, qb_norm, sinkhorn
from .query_bank import load_query_bank
from .retrieval import (
    rank_metrics,
    retrieval_metrics,
    retrieval_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
)

__all__ = [
    'POSTPROCESSING', 'FeatureRows', 'bootstrap_intervals', 'check_postprocess', 'dual_softmax', 'evaluate_retrieval',
    'load_query_bank', 'qb_norm', 'rank_metrics', 'retrieval_metrics', 'retrieval_ranks',
    'similarity_matrix', 'sinkhorn', 'text_to_video_ranks', 'video_to_text_ranks'
]
