"""Hooks."""
from .checkpoint_hook import TrainableCheckpointHook
from .set_epoch_hook import SetEpochHook
from .unreadable_video_hook import UnreadableVideoHook

__all__ = ['SetEpochHook', 'TrainableCheckpointHook', 'UnreadableVideoHook']
