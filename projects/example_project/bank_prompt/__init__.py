"""A prompt module that lives outside vop_mm; a config brings it in with custom_imports."""
from .bank_prompt import BankPrompt

__all__ = ['BankPrompt']
