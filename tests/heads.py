"""Heads as a stranger would write them, for tests of whatever goes by a head; a config names this file."""
import torch
from torch import nn
from torch.nn import functional as F

from vop_mm.models.heads import MeanPoolSimilarity, SimilarityHead
from vop_mm.registry import HEADS


@HEADS.register_module()
class MirrorSimilarity(MeanPoolSimilarity):
    """The mirror of cosine: one vector for each video, and what is most alike comes last."""

    def similarity(self, text, video, frame_mask=None):
        return text @ -torch.eye(text.shape[1], dtype=text.dtype, device=text.device) @ video.T


@HEADS.register_module()
class FramesByText(SimilarityHead):
    """Each caption looks at the frames that fit it (as in X-Pool), padding left out."""

    def prepare(self, backbone):
        self.query = nn.Linear(backbone.embed_dim, backbone.embed_dim)
        self.key = nn.Linear(backbone.embed_dim, backbone.embed_dim)

    def similarity(self, text, video, frame_mask=None):
        weights = torch.einsum('td,vfd->tvf', self.query(text), self.key(video)) / text.shape[1]**0.5
        if frame_mask is not None:
            weights = weights.masked_fill(~frame_mask, float('-inf'))
        pooled = torch.einsum('tvf,vfd->tvd', weights.softmax(-1), video)
        return torch.einsum('td,tvd->tv', F.normalize(text, dim=-1), F.normalize(pooled, dim=-1))


@HEADS.register_module()
class WordsByFrames(SimilarityHead):
    """The mean over a caption's words of each one's nearest frame (as in FILIP and DRL)."""
    reads_words = True

    def text(self, sentence, words=None, word_mask=None):
        return F.normalize(words, dim=-1) * word_mask[..., None]

    def video(self, frames, frame_mask=None):
        return F.normalize(frames, dim=-1)

    def similarity(self, text, video, frame_mask=None):
        cosines = torch.einsum('tld,vfd->tvlf', text, video)
        if frame_mask is not None:
            cosines = cosines.masked_fill(~frame_mask[:, None], float('-inf'))
        real = text.any(-1)[:, None]  # [T, 1, L]
        return (cosines.amax(-1) * real).sum(-1) / real.sum(-1)


def one_by_one(head, texts, videos, masks=None):
    """What a head says of all pairs, asked for each pair alone, [T, V]."""
    return torch.stack([torch.stack([
        head.similarity(t[None], v[None], None if masks is None else masks[i][None])[0, 0]
        for i, v in enumerate(videos)]) for t in texts])
