"""Structure of a pipeline: read a clip, augment it, tokenize captions, pack the sample."""
from collections.abc import Sequence
from typing import NamedTuple

from vop_mm.registry import TRANSFORMS

from .read_clip import ReadClip


class Pipeline(NamedTuple):
    """Transform configs of a pipeline, by stage.

    Attributes:
        read (dict): Config of :class:`~vop_mm.datasets.transforms.ReadClip`.
        augment (list[dict]): Transforms that change frames.
        tokenize (dict): Transform that tokenizes captions.
        pack (dict): Transform that packs both into a sample.
    """
    read: dict
    augment: list[dict]
    tokenize: dict
    pack: dict


def split_pipeline(pipeline: Sequence[dict]) -> Pipeline:
    """Split a pipeline into its stages.

    Args:
        pipeline (Sequence[dict]): Transform configs.

    Returns:
        Pipeline: The stages, as copies.

    Raises:
        ValueError: The pipeline has another structure.
    """
    steps = [dict(step) for step in pipeline]
    names = [str(step.get('type')) for step in steps]
    read = TRANSFORMS.get(names[0]) if steps else None
    if len(steps) < 3 or not (isinstance(read, type) and issubclass(read, ReadClip)):
        raise ValueError('a pipeline must be ReadClip, frame transforms, TokenizeText, PackVideoText; got '
                         f'{", ".join(names) or "empty"}')
    return Pipeline(steps[0], steps[1:-2], *steps[-2:])
