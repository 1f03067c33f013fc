"""What does not belong to one part: set-up of the registries, distribution, safe files."""
from .setup_env import register_all_modules

__all__ = ['register_all_modules']
