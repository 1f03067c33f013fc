"""Training and evaluation of experiments: runner, hooks, optimizer, checkpoints."""
from .autocast_optim_wrapper import AutocastOptimWrapper
from .hooks import *  # noqa: F401,F403
from .log_processor import RetrievalLogProcessor
from .optim_wrapper_constructor import TrainableOptimWrapperConstructor
from .runner import RetrievalRunner

__all__ = [
    'AutocastOptimWrapper', 'RetrievalLogProcessor', 'RetrievalRunner', 'TrainableOptimWrapperConstructor'
]
