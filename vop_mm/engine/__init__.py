"""Training and evaluation of experiments: runner, hooks, optimizer, checkpoints."""
from .autocast_optim_wrapper import AutocastOptimWrapper
from .fsdp_strategy import RetrievalFSDPStrategy
from .hooks import *  # noqa: F401,F403
from .log_processor import RetrievalLogProcessor
from .optim_wrapper_constructor import TrainableOptimWrapperConstructor
from .runner import FlexibleRetrievalRunner, RetrievalRunner

__all__ = [
    'AutocastOptimWrapper', 'FlexibleRetrievalRunner', 'RetrievalFSDPStrategy', 'RetrievalLogProcessor',
    'RetrievalRunner', 'TrainableOptimWrapperConstructor'
]
