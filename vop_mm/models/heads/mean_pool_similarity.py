"""Head that averages the frames of a video and compares by cosine."""
from torch import Tensor
from torch.nn import functional as F

from vop_mm.registry import HEADS
from vop_mm.utils.precision import at_least_float32, without_autocast

from .base import SimilarityHead, mean_of_frames


@HEADS.register_module()
class MeanPoolSimilarity(SimilarityHead):
    """Cosine similarity of the text and the mean of a video's frame embeddings (VoP, section 3.1)."""
    is_cosine = True

    def video(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Return the mean of the normalized frames, [B, F, D] -> [B, D], unit norm."""
        return mean_of_frames(F.normalize(frames, dim=-1), frame_mask)

    def text(self, sentence: Tensor, words: Tensor | None = None, word_mask: Tensor | None = None) -> Tensor:
        """Normalize the sentence embedding, [T, D] -> [T, D], unit norm."""
        return F.normalize(sentence, dim=-1)

    def similarity(self, text: Tensor, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Compute the cosine of every text with every video, [T, D], [V, D], unit norm -> [T, V].

        Computed in at least float32, even under autocast: logits are 100 times as large, and bfloat16 resolves cosines
        only to 0.004.
        """
        with without_autocast(text):
            return at_least_float32(text) @ at_least_float32(video).T

    def vector(self, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Return the kept vector unchanged, [B, D] -> [B, D]."""
        return video
