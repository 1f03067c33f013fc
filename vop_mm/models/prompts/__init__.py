"""Prompt providers, one a file."""
from .base import LayerContext, PromptProvider
from .generic_prompt import GenericPrompt

__all__ = ['GenericPrompt', 'LayerContext', 'PromptProvider']
