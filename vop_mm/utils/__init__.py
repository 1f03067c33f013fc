"""Shared utilities: registry setup, distributed helpers, safe files."""
from .setup_env import register_all_modules

__all__ = ['register_all_modules']
