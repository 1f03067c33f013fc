"""Hooks."""
from .checkpoint_hook import TrainableCheckpointHook
from .set_epoch_hook import SetEpochHook
from .trainable_ema_hook import TrainableEMAHook
from .unreadable_video_hook import UnreadableVideoHook

__all__ = ['SetEpochHook', 'TrainableCheckpointHook', 'TrainableEMAHook', 'UnreadableVideoHook']
