"""Fully sharded training (FSDP); a config imports it with custom_imports."""
from .runner import FlexibleRetrievalRunner
from .strategy import RetrievalFSDPStrategy

__all__ = ['FlexibleRetrievalRunner', 'RetrievalFSDPStrategy']
