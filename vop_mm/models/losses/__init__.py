"""Losses."""
from .symmetric_contrastive_loss import SymmetricContrastiveLoss

__all__ = ['SymmetricContrastiveLoss']
