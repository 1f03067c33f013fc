"""Content of the demo: colored shapes, the events they take part in, and captions for them.

Only numpy is needed here; ``tools/data/make_demo.py`` encodes the clips, ``demo/mini_clip/pretrain.py`` trains on
still images.
"""
from .rendering import SHAPES, Sprite, long_exposure, render
from .scenes import KINDS, Scene, caption, make_group, make_split, paraphrases, random_scene, vocabulary

__all__ = [
    'KINDS', 'SHAPES', 'Scene', 'Sprite', 'caption', 'long_exposure', 'make_group', 'make_split', 'paraphrases',
    'random_scene', 'render', 'vocabulary'
]
