"""Loss of text-video retrieval: cross-entropy over a batch in both directions."""
import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F

from vop_mm.registry import MODELS
from vop_mm.utils.precision import at_least_float32

from .same_video import check_same_video, same_video_pairs


@MODELS.register_module()
class SymmetricContrastiveLoss(BaseModule):
    """Mean of text-to-video and video-to-text cross-entropy (VoP, eq. 3), aware of pairs that share a video.

    Args:
        same_video (str): Treatment of two captions of the same video in a batch. ``'mask'``: they are left out of each
            other's denominators. ``'soft'``: they are positives that share the target equally. ``'negative'``: they
            are negatives, as in the plain diagonal loss of the paper. Defaults to ``'mask'``.

    Raises:
        ValueError: Unknown value of ``same_video``.
    """

    def __init__(self, same_video: str = 'mask') -> None:
        super().__init__()
        self.same_video = check_same_video(same_video)

    def forward(self, logits: Tensor, video_ids: Tensor) -> Tensor:
        """Compute the loss of a batch of pairs.

        Args:
            logits (Tensor): Scaled similarities of N texts with their N videos, [N, N]; pair i is on the diagonal.
            video_ids (Tensor): Id of the video of each pair, [N] int64.

        Returns:
            Tensor: Scalar.
        """
        logits = at_least_float32(logits)
        same, diagonal = same_video_pairs(video_ids)
        if self.same_video == 'mask':
            logits = logits.masked_fill(same & ~diagonal, float('-inf'))
        if self.same_video == 'soft':
            target = same.to(logits.dtype) / same.sum(dim=1, keepdim=True)  # symmetric: also valid for columns
        else:
            target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
