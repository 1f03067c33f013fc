"""Experiment configs: reading them, and checking what users wrote."""
from .read import import_custom_modules, parse_options, read_config, require_checkpoint

__all__ = ['import_custom_modules', 'parse_options', 'read_config', 'require_checkpoint']
