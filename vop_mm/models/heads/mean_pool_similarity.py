"""From frames to videos to similarities, by the mean."""
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F

from vop_mm.registry import MODELS
from vop_mm.utils.precision import at_least_float32, without_autocast


@MODELS.register_module()
class MeanPoolSimilarity(BaseModule):
    """A video is the mean of its frame embeddings; similarity is the cosine with the text (VoP, section 3.1)."""

    def pool(self, frame_features: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Frame embeddings to video embeddings.

        Args:
            frame_features (Tensor): [B, F, D], unit norm.
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: [B, D], unit norm.
        """
        if frame_mask is None:
            pooled = frame_features.mean(dim=1)  # [B, F, D] -> [B, D]
        else:
            weights = frame_mask.to(frame_features.dtype)[..., None]  # [B, F, 1]
            pooled = (frame_features * weights).sum(dim=1) / weights.sum(dim=1)  # [B, D]
        return F.normalize(pooled, dim=-1)

    def similarity(self, text_features: Tensor, video_features: Tensor) -> Tensor:
        """Cosine of every text with every video. [T, D], [V, D], unit norm -> [T, V]

        In float32 at least, under autocast too: logits are 100 times as large, and bfloat16 knows cosines to 0.004.
        """
        with without_autocast(text_features):
            return at_least_float32(text_features) @ at_least_float32(video_features).T
