"""Loss of text-video retrieval: every text with every video is a yes-or-no question of its own."""
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from vop_mm.registry import MODELS
from vop_mm.utils.precision import at_least_float32

from .same_video import check_same_video, same_video_pairs


@MODELS.register_module()
class SigmoidLoss(BaseModule):
    """Pairwise sigmoid loss of SigLIP (Zhai et al. 2023), aware of pairs that share a video.

    Each of the N x N similarities is classified as matching or not, by ``-log sigmoid`` of the logit or of its
    opposite. The loss is the sum over all of them, divided by N.

    Args:
        same_video (str): Treatment of two captions of the same video in a batch. ``'mask'``: the caption of one with
            the video of the other is left out. ``'soft'``: it matches. ``'negative'``: it doesn't, as in the original
            loss. Defaults to ``'mask'``.
        bias (float, optional): Initial value of a trainable bias that is added to the logits, for backbones without a
            logit bias (CLIP). None adds none. Defaults to None.

    Raises:
        ValueError: Unknown value of ``same_video``.
    """

    def __init__(self, same_video: str = 'mask', bias: float | None = None) -> None:
        super().__init__()
        self.same_video = check_same_video(same_video)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))

    def forward(self, logits: Tensor, video_ids: Tensor) -> Tensor:
        """Compute the loss of a batch of pairs.

        Args:
            logits (Tensor): Scaled similarities of N texts with their N videos, plus the backbone's logit bias if it
                has one, [N, N]; pair i is on the diagonal.
            video_ids (Tensor): Id of the video of each pair, [N] int64.

        Returns:
            Tensor: Scalar.
        """
        logits = at_least_float32(logits)
        if self.bias is not None:
            logits = logits + self.bias
        same, diagonal = same_video_pairs(video_ids)
        losses = -F.logsigmoid(torch.where(same if self.same_video == 'soft' else diagonal, logits, -logits))
        if self.same_video == 'mask':
            losses = losses.masked_fill(same & ~diagonal, 0)
        return losses.sum() / len(logits)
