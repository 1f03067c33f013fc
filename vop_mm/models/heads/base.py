"""Base class of the heads, which define the similarity of captions and videos."""
from abc import abstractmethod

from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone


class SimilarityHead(BaseModule):
    """Base class of modules that score captions against videos, from the raw embeddings of the two towers.

    :meth:`video` and :meth:`text` run once for each video and caption and return the features to keep, in any shape
    that is the same for all; :meth:`similarity` scores all pairs of these features. Loss, metric and search use these
    methods only.

    Attributes:
        reads_words (bool): Whether :meth:`text` takes the embeddings of all words. Defaults to False.
        is_cosine (bool): Whether :meth:`text` returns [T, D] and :meth:`video` [V, D], both of unit norm, and
            :meth:`similarity` is their dot product. Feature dumps, ONNX files and indexes that hold vectors only
            require such a head. A subclass that overrides :meth:`similarity` has to set it again.
    """
    reads_words = False
    is_cosine = False

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if 'similarity' in vars(cls) and 'is_cosine' not in vars(cls):
            cls.is_cosine = False  # not inherited: it described another similarity function

    def prepare(self, backbone: Backbone) -> None:
        """Initialize the head from the backbone's weights. Does nothing by default.

        Args:
            backbone (Backbone): The backbone with its weights.
        """

    def video(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Return the features to keep of videos; by default, all frames.

        Args:
            frames (Tensor): Raw frame embeddings [B, F, D].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: [B, ...], rows independent of each other.
        """
        return frames

    def text(self, sentence: Tensor, words: Tensor | None = None, word_mask: Tensor | None = None) -> Tensor:
        """Return the features to keep of captions; by default, the sentence embedding.

        Args:
            sentence (Tensor): Raw sentence embeddings [T, D].
            words (Tensor, optional): Raw embeddings of all tokens [T, L, D] if the head :attr:`reads_words`; 0 where
                there is no token. L is the same for all batches.
            word_mask (Tensor, optional): [T, L] bool, True from start to end of text, False where there is no token.

        Returns:
            Tensor: [T, ...], rows independent of each other.
        """
        return sentence

    def require_cosine(self, what: str) -> None:
        """Raise an error if the head is not a cosine similarity of vectors.

        Args:
            what (str): Name of the feature that needs vectors, for the message.

        Raises:
            ValueError: The head is not :attr:`is_cosine`; the message names it.
        """
        if not self.is_cosine:
            raise ValueError(f'the head {type(self).__name__} scores otherwise than by the cosine of two vectors, and '
                             f'{what} holds vectors alone')

    @abstractmethod
    def similarity(self, text: Tensor, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Score every caption with every video.

        Callers split large evaluations into blocks of pairs, so the score of a pair must not depend on other pairs.

        Args:
            text (Tensor): Output of :meth:`text`, [T, ...].
            video (Tensor): Output of :meth:`video`, [V, ...].
            frame_mask (Tensor, optional): [V, F] bool, False where a frame is padding.

        Returns:
            Tensor: [T, V], in the range of cosines, before the logit scale.
        """

    def vector(self, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Return one vector per video, for an index.

        The default is the mean of the frames, for heads that keep all frames.

        Args:
            video (Tensor): Output of :meth:`video`, [B, F, D].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: [B, D], unit norm, to be compared with sentence embeddings of unit norm.
        """
        return mean_of_frames(F.normalize(video, dim=-1), frame_mask)


def mean_of_frames(frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
    """Return the mean over the real frames of each video, normalized to unit norm.

    Args:
        frames (Tensor): [B, F, D].
        frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

    Returns:
        Tensor: [B, D], unit norm.
    """
    if frame_mask is None:
        pooled = frames.mean(dim=1)  # [B, F, D] -> [B, D]
    else:
        weights = frame_mask.to(frames.dtype)[..., None]  # [B, F, 1]
        pooled = (frames * weights).sum(dim=1) / weights.sum(dim=1)  # [B, D]
    return F.normalize(pooled, dim=-1)
