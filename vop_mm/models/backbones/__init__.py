"""Backbones, and the two towers that run their frozen blocks with prompts."""
from .base import Backbone, Preprocessing
from .open_clip_port import OpenCLIP
from .text_tower import TextTower
from .vision_tower import VisionTower

__all__ = ['Backbone', 'OpenCLIP', 'Preprocessing', 'TextTower', 'VisionTower']
