"""CLIP and the two towers that run its frozen blocks with prompts."""
from .open_clip_port import OpenCLIP
from .text_tower import TextTower
from .vision_tower import VisionTower

__all__ = ['OpenCLIP', 'TextTower', 'VisionTower']
