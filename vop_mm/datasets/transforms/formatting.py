"""Last transform of a pipeline."""
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from vop_mm.registry import TRANSFORMS
from vop_mm.structures import VideoTextDataSample

_META = ('video_id', 'video_index', 'captions', 'filename')


@TRANSFORMS.register_module()
class PackVideoText(BaseTransform):
    """Pack frames and tokens into the input of collate, data preprocessor and model.

    Required keys: ``imgs`` (list of F uint8 [H, W, 3]), ``tokens``, ``video_id``, ``video_index``, ``captions``,
    ``filename``; optional ``num_frames``, ``unreadable`` and the keys named in ``meta_keys``.

    Args:
        meta_keys (Sequence[str]): Additional keys for the metainfo; keys that a sample lacks are skipped. Defaults to
            ``('start', 'end')``.
    """

    def __init__(self, meta_keys: Sequence[str] = ('start', 'end')) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack a sample.

        Returns:
            dict: ``inputs``, uint8 [F, 3, H, W] RGB, and ``data_samples``, a :class:`VideoTextDataSample` with
            ``tokens`` and the metainfo described there.
        """
        frames = np.stack(results['imgs']).transpose(0, 3, 1, 2)  # F x [H, W, 3] -> [F, 3, H, W]
        if frames.dtype != np.uint8 or frames.shape[1] != 3:
            raise ValueError(f'frames must be uint8 RGB, got {frames.dtype} {frames.shape}')
        meta = {key: results[key] for key in _META}
        meta.update({key: results[key] for key in self.meta_keys if key in results})
        meta.update(num_frames=results.get('num_frames', len(frames)), unreadable=list(results.get('unreadable', ())))
        sample = VideoTextDataSample(metainfo=meta)
        sample.tokens = results['tokens']
        return dict(inputs=torch.from_numpy(np.ascontiguousarray(frames)), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
