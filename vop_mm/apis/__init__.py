"""What a program that uses vop_mm calls."""
from .inference import init_model

__all__ = ['init_model']
