"""The world of the demo: colored shapes, the events they take part in, and captions for them.

Nothing in ``vop_mm`` knows of it. Importing this needs only numpy; configs name the modules that register something,
:mod:`.mini_clip` and :mod:`.pair_accuracy`, in ``custom_imports``.
"""
from .rendering import SHAPES, Sprite, long_exposure, render
from .scenes import KINDS, Scene, caption, make_group, make_split, paraphrases, random_scene, vocabulary

__all__ = [
    'KINDS', 'SHAPES', 'Scene', 'Sprite', 'caption', 'long_exposure', 'make_group', 'make_split', 'paraphrases',
    'random_scene', 'render', 'vocabulary'
]
