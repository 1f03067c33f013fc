"""Adapters: small trained modules inside frozen blocks."""
from .parallel_adapter import ParallelAdapter

__all__ = ['ParallelAdapter']
