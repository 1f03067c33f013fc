"""Decoders, what they can't be trusted with, and the process that they run in."""
from .containers import unfit_for_decord, unfit_for_torchcodec
from .process import DecodeProcess

__all__ = ['DecodeProcess', 'unfit_for_decord', 'unfit_for_torchcodec']
