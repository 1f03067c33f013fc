"""The vision tower: CLIP's frozen blocks, with prompts, over the frames of videos."""
from collections.abc import Iterable

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ..prompts.base import LayerContext, PromptProvider
from .open_clip_port import OpenCLIP


class VisionTower(BaseModule):
    """Runs frames through CLIP's vision blocks with prompts in between (VoP, section 3.2).

    Layer by layer, the providers' tokens stand between CLS and the patches, in the order given; what the block puts out
    at their positions is thrown away. The order in a layer is always ``[CLS, prompts, patches]``.

    Args:
        prompts (Iterable[PromptProvider]): Providers; each stands in its own layers. May be empty: stock CLIP.
    """

    def __init__(self, prompts: Iterable[PromptProvider] = ()) -> None:
        super().__init__()
        self.prompts = nn.ModuleList(prompts)

    def forward(self, clip: OpenCLIP, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Embed every frame.

        Args:
            clip (OpenCLIP): The frozen backbone.
            frames (Tensor): CLIP-normalised pixels [B, F, 3, H, W].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: Frame embeddings [B, F, D], unit norm.
        """
        num_videos, num_frames = frames.shape[:2]
        cls, patches = clip.embed_frames(frames.flatten(0, 1))  # [B * F, 1, C], [B * F, M, C]
        for layer in range(len(clip.vision_blocks)):
            context = LayerContext(layer, cls.unflatten(0, (num_videos, num_frames)).squeeze(2), frame_mask)
            prompts = self._tokens(context)  # [B * F, P, C]
            if layer == 0:
                prompts = [clip.norm_vision_prompts(p) for p in prompts]
            num_prompts = sum(p.shape[1] for p in prompts)
            x = clip.run_vision_block(layer, torch.cat([cls, *prompts, patches], dim=1))  # [B * F, 1 + P + M, C]
            cls, patches = x[:, :1], x[:, 1 + num_prompts:]
        embeddings = clip.project_frames(cls.squeeze(1)).unflatten(0, (num_videos, num_frames))  # [B, F, D]
        return F.normalize(embeddings, dim=-1)

    def _tokens(self, context: LayerContext) -> list[Tensor]:
        num_videos, num_frames = context.cls.shape[:2]
        tokens = [p.tokens(context) for p in self.prompts if context.layer in p.layers]
        # expanded, not repeated: what is shared by videos and frames stays a view until the layer's one concatenation
        return [t.to(context.cls.dtype).expand(num_videos, num_frames, -1, -1).flatten(0, 1) for t in tokens]
