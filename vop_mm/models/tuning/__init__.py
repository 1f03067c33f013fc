"""Tuning strategies, which decide which parameters train."""
from .adapters import AdapterTuning
from .base import TuningStrategy, frozen_names, trainable_parameters, trainable_state_dict
from .strategies import BiasTuning, FullTuning, PartialTuning, ProjTuning, PromptTuning, ZeroShot

__all__ = ['AdapterTuning', 'BiasTuning', 'FullTuning', 'PartialTuning', 'ProjTuning', 'PromptTuning',
           'TuningStrategy', 'ZeroShot', 'frozen_names', 'trainable_parameters', 'trainable_state_dict']
