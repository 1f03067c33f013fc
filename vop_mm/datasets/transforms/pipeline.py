"""What a pipeline is: a clip is read, changed, and packed with its captions."""
from collections.abc import Sequence
from typing import NamedTuple

from vop_mm.registry import TRANSFORMS

from .read_clip import ReadClip


class Pipeline(NamedTuple):
    """The parts of a pipeline, configs of transforms.

    Attributes:
        read (dict): Of :class:`~vop_mm.datasets.transforms.ReadClip`.
        augment (list[dict]): What changes frames.
        tokenize (dict): What makes tokens of captions.
        pack (dict): What makes a sample of both.
    """
    read: dict
    augment: list[dict]
    tokenize: dict
    pack: dict


def split_pipeline(pipeline: Sequence[dict]) -> Pipeline:
    """Take a pipeline apart.

    Args:
        pipeline (Sequence[dict]): Configs of transforms.

    Returns:
        Pipeline: Its parts, copies.

    Raises:
        ValueError: It is of another form.
    """
    steps = [dict(step) for step in pipeline]
    names = [str(step.get('type')) for step in steps]
    read = TRANSFORMS.get(names[0]) if steps else None
    if len(steps) < 3 or not (isinstance(read, type) and issubclass(read, ReadClip)):
        raise ValueError('a pipeline is ReadClip, what changes frames, TokenizeText, PackVideoText; this one is '
                         f'{", ".join(names) or "empty"}')
    return Pipeline(steps[0], steps[1:-2], *steps[-2:])
