"""VoP: parameter-efficient tuning of CLIP for text-video retrieval.

Importing the package checks the environment and nothing more: its parts are imported when they are asked for.
"""
from .utils.version_guard import check_environment
from .version import __version__

check_environment()

__all__ = ['__version__']
