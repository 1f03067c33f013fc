"""Hooks."""
from .check_invalid_loss_hook import CheckInvalidLossHook
from .checkpoint_hook import TrainableCheckpointHook
from .set_epoch_hook import SetEpochHook
from .trainable_ema_hook import TrainableEMAHook
from .unreadable_video_hook import UnreadableVideoHook
from .validate_on_resume_hook import ValidateOnResumeHook

__all__ = [
    'CheckInvalidLossHook', 'SetEpochHook', 'TrainableCheckpointHook', 'TrainableEMAHook', 'UnreadableVideoHook',
    'ValidateOnResumeHook'
]
