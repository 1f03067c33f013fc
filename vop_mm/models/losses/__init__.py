"""Losses."""
from .sigmoid_loss import SigmoidLoss
from .symmetric_contrastive_loss import SymmetricContrastiveLoss

__all__ = ['SigmoidLoss', 'SymmetricContrastiveLoss']
