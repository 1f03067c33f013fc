"""Prompt module outside of vop_mm; a config imports it with custom_imports."""
from .bank_prompt import BankPrompt

__all__ = ['BankPrompt']
