"""Hooks."""
from .buffered_runtime_info_hook import BufferedRuntimeInfoHook
from .checkpoint_hook import TrainableCheckpointHook
from .set_epoch_hook import SetEpochHook
from .trainable_ema_hook import TrainableEMAHook
from .unreadable_video_hook import UnreadableVideoHook
from .validate_on_resume_hook import ValidateOnResumeHook

__all__ = [
    'BufferedRuntimeInfoHook', 'SetEpochHook', 'TrainableCheckpointHook', 'TrainableEMAHook', 'UnreadableVideoHook',
    'ValidateOnResumeHook'
]
