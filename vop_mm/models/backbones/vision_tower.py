"""Vision tower: a backbone's frozen blocks, with prompts, over the frames of videos."""
from collections.abc import Callable, Iterable

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vop_mm.utils.precision import at_least_float32

from ..prompts import ContextUpdate, LayerContext, PromptProvider
from .base import Backbone


class VisionTower(BaseModule):
    """Tower that runs frames through a backbone's vision blocks with prompts in between (VoP, sections 3.2 to 3.4).

    In each layer, the providers' tokens are inserted between CLS and the patches, in the order given, and the block's
    outputs at their positions are discarded. The order in a layer is always ``[CLS, prompts, patches]``.

    Layers below ``video_from`` see one sequence per frame, ``[CLS, P, E]``. Layers from ``video_from`` on see one
    sequence per video, ``[CLS_1 .. CLS_F, P, E_1 .. E_F]``, where row j of a trainable frame position is added to the
    tokens of frame j.

    Backbones without CLS have the same sequences without it: ``[P, E]`` and ``[P, E_1 .. E_F]``. Each frame is read
    from its own CLS and patches. What prompts know of a frame (VoP^C) is its CLS token if the frame is read from that
    alone, otherwise the mean of its patches.

    Args:
        prompts (Iterable[PromptProvider]): Providers, each with its own layers. If empty, the tower is the plain
            backbone's.
        cls_updates (Iterable[ContextUpdate]): Modules that change the CLS tokens before a layer, of a backbone with one
            for each frame. Defaults to none.
        depth (int): Number of layers of the tower.
        width (int): Number of channels (C).
        num_frames (int): Number of frames of a video (F).
        video_from (int): First layer of video scope, 0 .. depth. With ``depth``, every layer sees single frames.
        recompute (bool): Recompute activations inside blocks in the backward pass instead of storing them. Defaults to
            False.
    """

    def __init__(self, prompts: Iterable[PromptProvider] = (), cls_updates: Iterable[ContextUpdate] = (), *,
                 depth: int, width: int, num_frames: int, video_from: int, recompute: bool = False) -> None:
        super().__init__()
        self.prompts = nn.ModuleList(prompts)
        self.cls_updates = nn.ModuleList(cls_updates)
        self.num_frames = num_frames
        self.video_from = video_from
        self.recompute = recompute
        if video_from < depth:
            self.frame_position = nn.Parameter(torch.empty(num_frames, width))
            nn.init.normal_(self.frame_position, std=0.02)

    def forward(self, backbone: Backbone, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Embed every frame.

        Args:
            backbone (Backbone): The frozen backbone.
            frames (Tensor): Normalized pixels [B, F, 3, H, W].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding.

        Returns:
            Tensor: Raw frame embeddings [B, F, D].

        Raises:
            ValueError: There are more frames than frame positions.
        """
        shape = frames.shape[:2]
        cls, patches = backbone.embed_frames(frames.flatten(0, 1))  # [B * F, R, C], [B * F, M, C]
        cls_shape, patch_shape = ((*shape, tokens.shape[1], backbone.vision_width) for tokens in (cls, patches))
        for layer in range(len(backbone.vision_blocks)):
            joined = layer >= self.video_from
            if layer == self.video_from:
                cls, patches = self._join_frames(cls.unflatten(0, shape), patches.unflatten(0, shape))
            seen = patches.reshape(patch_shape)  # a view
            reads_cls = backbone.reads_cls and cls_shape[2] > 0
            summary = cls.reshape(cls_shape)[:, :, 0] if reads_cls else seen.mean(2)  # [B, F, C]
            context = LayerContext(layer, summary, frame_mask, seen)
            for module in self.cls_updates:
                if layer in module.layers:
                    context = context._replace(cls=module.update(context))
                    others = cls.reshape(cls_shape)[:, :, 1:]
                    cls = torch.cat([context.cls[:, :, None], others], dim=2).view_as(cls)
            tokens = [p.tokens(context).to(cls.dtype) for p in self.prompts if layer in p.layers]
            if layer == 0:
                tokens = [backbone.norm_vision_prompts(t) for t in tokens]
            # expanded, not repeated: tensors shared by videos and frames stay views until the layer's single
            # concatenation
            if joined:
                prompts = [t.expand(shape[0], -1, -1, -1).flatten(1, 2) for t in tokens]  # [B, P, C], or [B, F * P, C]
            else:
                prompts = [t.expand(*shape, -1, -1).flatten(0, 1) for t in tokens]  # [B * F, P, C]
            num_cls, num_prompts = cls.shape[1], sum(p.shape[1] for p in prompts)
            key_mask = (_key_mask(frame_mask, tokens, cls_shape[2], patch_shape[2])
                        if joined and frame_mask is not None else None)
            x = torch.cat([cls, *prompts, patches], dim=1)  # [B * F, R + P + M, C] or [B, F * R + P + F * M, C]
            x = self._run(backbone.run_vision_block, layer, x, num_cls + num_prompts, key_mask)
            cls, patches = x[:, :num_cls], x[:, num_cls + num_prompts:]
        return at_least_float32(backbone.read_frames(cls.reshape(cls_shape), patches.reshape(patch_shape)))  # [B, F, D]

    def _join_frames(self, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Join the frames' sequences, [B, F, R, C], [B, F, M, C] -> [B, F * R, C], [B, F * M, C]."""
        num_frames = cls.shape[1]
        if num_frames > len(self.frame_position):
            raise ValueError(f'{num_frames} frames, but this model has positions for {len(self.frame_position)}')
        position = self.frame_position[:num_frames, None].to(cls.dtype)  # [F, 1, C]
        return (cls + position).flatten(1, 2), (patches + position).flatten(1, 2)

    def _run(self, block: Callable, layer: int, x: Tensor, *args) -> Tensor:
        if self.recompute and x.requires_grad:
            return checkpoint(block, layer, x, *args, use_reentrant=False)
        return block(layer, x, *args)


def _key_mask(frame_mask: Tensor, tokens: list[Tensor], num_read: int, num_patches: int) -> Tensor:
    """Return a mask of the tokens of a video that may be attended to, [B, F] -> [B, F * R + P + F * M].

    Tokens of padding frames are masked, including prompts that belong to these frames.
    """
    num_videos = frame_mask.shape[0]  # not len(), which an exporter takes for a constant
    prompts = [frame_mask.repeat_interleave(t.shape[2], dim=1) if t.shape[1] > 1
               else frame_mask.new_ones(num_videos, t.shape[2]) for t in tokens]
    read, patches = (frame_mask.repeat_interleave(n, dim=1) for n in (num_read, num_patches))
    return torch.cat([read, *prompts, patches], dim=1)
