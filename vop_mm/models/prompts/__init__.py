"""Prompt providers, one per file."""
from .base import LayerContext, PromptProvider
from .context_prompt import ContextPrompt
from .context_update import ContextUpdate
from .frame_mixers import LSTM, BiLSTM, FrameTransformer
from .generic_prompt import GenericPrompt
from .position_prompt import PositionPrompt

__all__ = ['BiLSTM', 'ContextPrompt', 'ContextUpdate', 'FrameTransformer', 'GenericPrompt', 'LSTM', 'LayerContext',
           'PositionPrompt', 'PromptProvider']
