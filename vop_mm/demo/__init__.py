"""What the demo is made of: coloured shapes, the events they take part in, and the words for them.

Only numpy is needed here; ``tools/data/make_demo.py`` encodes the clips, ``demo/mini_clip/pretrain.py`` learns from
stills.
"""
from .rendering import SHAPES, Sprite, long_exposure, render
from .scenes import KINDS, Scene, caption, make_group, make_split, paraphrases, random_scene, vocabulary

__all__ = [
    'KINDS', 'SHAPES', 'Scene', 'Sprite', 'caption', 'long_exposure', 'make_group', 'make_split', 'paraphrases',
    'random_scene', 'render', 'vocabulary'
]
