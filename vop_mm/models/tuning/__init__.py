"""Tuning strategies: what trains, one small class each."""
from .adapter_tuning import AdapterTuning
from .base import TuningStrategy, frozen_names, trainable_parameters, trainable_state_dict
from .bias_tuning import BiasTuning
from .full_tuning import FullTuning
from .partial_tuning import PartialTuning
from .proj_tuning import ProjTuning
from .prompt_tuning import PromptTuning
from .zero_shot import ZeroShot

__all__ = ['AdapterTuning', 'BiasTuning', 'FullTuning', 'PartialTuning', 'ProjTuning', 'PromptTuning',
           'TuningStrategy', 'ZeroShot', 'frozen_names', 'trainable_parameters', 'trainable_state_dict']
