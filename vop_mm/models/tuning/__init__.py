"""Tuning strategies: what trains, one small class each."""
from .base import TuningStrategy, frozen_names, trainable_parameters, trainable_state_dict
from .prompt_tuning import PromptTuning
from .zero_shot import ZeroShot

__all__ = ['PromptTuning', 'TuningStrategy', 'ZeroShot', 'frozen_names', 'trainable_parameters',
           'trainable_state_dict']
