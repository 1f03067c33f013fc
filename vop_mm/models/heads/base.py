"""What a head is: the one place that decides how similar a caption and a video are."""
from abc import abstractmethod

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F


class SimilarityHead(BaseModule):
    """Scores captions against videos, from the raw embeddings of the two towers.

    :meth:`video` and :meth:`text` are run once for each video and caption and say what is kept of it, in any shape that
    is the same for all; :meth:`similarity` scores all pairs of what was kept. Loss, metric and search call these alone.

    Attributes:
        reads_words (bool): Whether :meth:`text` takes the embeddings of all words. Defaults to False.
        is_cosine (bool): Whether :meth:`text` gives [T, D] and :meth:`video` [V, D], both of unit norm, and
            :meth:`similarity` is their dot product. Only such a head fits into feature dumps, ONNX files and the
            vectors of an index alone. A subclass with another :meth:`similarity` has to claim it anew.
    """
    reads_words = False
    is_cosine = False

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if 'similarity' in vars(cls) and 'is_cosine' not in vars(cls):
            cls.is_cosine = False  # inherited, it would be said of another function

    def prepare(self, clip: nn.Module) -> None:
        """Take what the head starts from out of CLIP. Nothing by default.

        Args:
            clip (nn.Module): The backbone with its weights.
        """

    def video(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """What is kept of videos; by default all frames.

        Args:
            frames (Tensor): Raw frame embeddings [B, F, D].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: [B, ...], rows independent of each other.
        """
        return frames

    def text(self, sentence: Tensor, words: Tensor | None = None, word_mask: Tensor | None = None) -> Tensor:
        """What is kept of captions; by default the sentence's embedding.

        Args:
            sentence (Tensor): Raw sentence embeddings [T, D].
            words (Tensor, optional): Raw embeddings of all tokens [T, L, D], if the head :attr:`reads_words`; 0 where
                there is none. L is the same for all batches.
            word_mask (Tensor, optional): [T, L] bool, False where there is no token; from start to end of text.

        Returns:
            Tensor: [T, ...], rows independent of each other.
        """
        return sentence

    def require_cosine(self, what: str) -> None:
        """Refuse what can't do without vectors and their cosines.

        Args:
            what (str): What that is, for the message.

        Raises:
            ValueError: The head is not :attr:`is_cosine`; names it.
        """
        if not self.is_cosine:
            raise ValueError(f'the head {type(self).__name__} scores otherwise than by the cosine of two vectors, and '
                             f'{what} holds vectors alone')

    @abstractmethod
    def similarity(self, text: Tensor, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Score every caption with every video.

        Callers cut large evaluations into blocks of pairs, so that a pair's score must not depend on the others.

        Args:
            text (Tensor): What :meth:`text` kept, [T, ...].
            video (Tensor): What :meth:`video` kept, [V, ...].
            frame_mask (Tensor, optional): [V, F] bool, False where a frame is padding.

        Returns:
            Tensor: [T, V], before the logit scale: in the range of cosines.
        """

    def vector(self, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """One vector for each video, for an index; by default the mean of the frames, for heads that keep all of them.

        Args:
            video (Tensor): What :meth:`video` kept, [B, F, D].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: [B, D], unit norm, to be compared with unit sentence embeddings.
        """
        return mean_of_frames(F.normalize(video, dim=-1), frame_mask)


def mean_of_frames(frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
    """Direction of the mean over the real frames of each video.

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
