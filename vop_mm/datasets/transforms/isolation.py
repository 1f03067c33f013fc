"""Transforms in a process of their own."""
from collections.abc import Callable, Sequence

from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose

from vop_mm.registry import TRANSFORMS

from ..decoding import DecodeProcess
from ..randomness import generator_states, set_generator_states


@TRANSFORMS.register_module()
class IsolatedDecode(BaseTransform):
    """Run the transforms that decode in a child process, so that a file on which the decoder crashes or hangs is an
    undecodable video like any other (:class:`~vop_mm.datasets.VideoDecodeError`) and training goes on.

    Each process that loads data has one child, started with the first video. Errors come back as they are. What the
    transforms draw from global generators, and what is drawn after them, is the same as without isolation.

    Required keys: ``filename``, and those of the transforms; all values must be picklable, before and after.

    Args:
        transforms (Sequence): From opening to decoding (and resizing, where less is to go from process to process).
        timeout (float): Seconds that a video may take, before it is tried once more. Defaults to 60.
    """

    def __init__(self, transforms: Sequence[dict | Callable], timeout: float = 60.) -> None:
        self.transforms = Compose([TRANSFORMS.build(step) if isinstance(step, dict) else step for step in transforms])
        self._process = DecodeProcess(self._run, timeout)

    def transform(self, results: dict) -> dict:
        """Run the transforms.

        Raises:
            VideoDecodeError: A transform raised it, or the child died or took too long, twice.
        """
        results, states = self._process.call(results['filename'], results, generator_states())
        set_generator_states(states)
        return results

    def _run(self, results: dict, states: tuple) -> tuple[dict, tuple]:
        """In the child."""
        set_generator_states(states)
        return self.transforms(results), generator_states()

    def __repr__(self) -> str:
        return f'{type(self).__name__}(transforms={self.transforms}, timeout={self._process.timeout:g})'
