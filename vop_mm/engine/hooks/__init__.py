"""Hooks."""
from .checkpoint_hook import TrainableCheckpointHook

__all__ = ['TrainableCheckpointHook']
