"""Vision towers of open_clip, by kind: embedding of frames, running of a block, read-out.

A port refers to modules of the model and owns none, so that the names of the weights remain open_clip's.
"""
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_READ = dict(tok='CLS', token='CLS', avg='mean of patches')


class VisionPort:
    """Base class of the ports, and the port of a tower without transformer blocks (ResNet, ConvNeXt, FastViT, Swin).

    Such a tower runs as a whole: a frame becomes one token, its embedding, and there are no patches.

    Args:
        visual (nn.Module): open_clip's vision tower.
        embed_dim (int): Number of dimensions of the embeddings (D).

    Attributes:
        blocks (nn.ModuleList): Transformer blocks; empty if the tower runs as a whole.
        width (int): Number of channels of the tokens (C).
        reads_cls (bool): Whether a frame is read from its CLS token alone.
    """
    reads_cls = True

    def __init__(self, visual: nn.Module, embed_dim: int) -> None:
        self.visual = visual
        self.width = embed_dim
        self.blocks = nn.ModuleList()

    @property
    def kind(self) -> str:
        """Kind of tower: how it is made and how frames are read, in words."""
        return f'{type(getattr(self.visual, "trunk", self.visual)).__name__} as a whole'

    @property
    def projections(self) -> Iterable[nn.Parameter]:
        """Parameters of the final projection; none if the tower ends with attention pooling."""
        visual = self.visual
        if hasattr(visual, 'attnpool'):  # ModifiedResNet
            return visual.attnpool.c_proj.parameters()
        return [*visual.head.parameters()] or visual.trunk.get_classifier().parameters()

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Convert frames [N, 3, H, W] to read-out tokens [N, R, C] and patches [N, M, C]."""
        x = self.visual(frames)[:, None]  # [N, D] -> [N, 1, D]
        return x, x[:, :0]

    def norm_prompts(self, prompts: Tensor) -> Tensor:
        """Apply the normalization before the first block, [..., C] -> [..., C]."""
        return prompts

    def read(self, cls: Tensor, patches: Tensor) -> Tensor:
        """Read embeddings from read-out tokens [B, F, R, C] and patches [B, F, M, C], -> [B, F, D]."""
        return cls.squeeze(-2)


class OpenClipViT(VisionPort):
    """Port of open_clip's own ``VisionTransformer``, read at CLS, as the mean of the patches, or by attention pooling.

    Args:
        visual (VisionTransformer): The tower.
    """

    def __init__(self, visual: nn.Module) -> None:
        self.visual = visual
        self.blocks = visual.transformer.resblocks
        self.width = visual.class_embedding.shape[0]
        self.reads_cls = visual.attn_pool is None and visual.pool_type == 'tok'

    @property
    def kind(self) -> str:
        read = 'attention pooling' if self.visual.attn_pool is not None else _READ[self.visual.pool_type]
        return f'ViT, {read}'

    @property
    def projections(self) -> list[nn.Parameter]:
        return [self.visual.proj]

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        visual = self.visual
        patches = visual.conv1(frames).flatten(2).transpose(1, 2)  # [N, C, h, w] -> [N, M, C]
        positions = visual.positional_embedding
        cls = (visual.class_embedding + positions[0]).to(patches.dtype).expand(frames.shape[0], 1, -1)
        patches = patches + positions[1:].to(patches.dtype)
        return visual.ln_pre(cls), visual.ln_pre(patches)

    def norm_prompts(self, prompts: Tensor) -> Tensor:
        return self.visual.ln_pre(prompts)

    def run_block(self, layer: int, x: Tensor, num_prefix: int, key_mask: Tensor | None) -> Tensor:
        """Run a block; see :meth:`Backbone.run_vision_block`."""
        if key_mask is None:
            return self.blocks[layer](x)
        return self.blocks[layer](x, attn_mask=additive_mask(key_mask, x.dtype))

    def read(self, cls: Tensor, patches: Tensor) -> Tensor:
        visual = self.visual
        if self.reads_cls:
            return visual.ln_post(cls.squeeze(-2)) @ visual.proj  # [B, F, 1, C] -> [B, F, D]
        x = torch.cat([cls, patches], dim=2).flatten(0, 1)  # [B * F, 1 + M, C]
        return (visual._pool(x)[0] @ visual.proj).unflatten(0, cls.shape[:2])


class TimmViT(VisionPort):
    """Port of timm's ``VisionTransformer`` and ``Eva`` in open_clip's ``TimmModel``.

    With and without CLS, with learned or rotary positions, behind any stem; read at CLS, as the mean of the patches, or
    by attention pooling.

    Args:
        visual (TimmModel): The tower.
    """

    def __init__(self, visual: nn.Module) -> None:
        self.visual = visual
        self.trunk = visual.trunk
        self.blocks = self.trunk.blocks
        self.width = self.trunk.embed_dim
        self.reads_cls = self.trunk.global_pool == 'token' and getattr(self.trunk, 'attn_pool', None) is None
        self.num_read = self.trunk.num_prefix_tokens
        self.rotates = getattr(self.trunk, 'rope', None) is not None
        if self.rotates:
            for block in self.blocks:
                block.attn.num_prefix_tokens = 0  # all tokens are rotated, those without a position by 0 degrees

    @property
    def kind(self) -> str:
        trunk = self.trunk
        parts = [f'timm {type(trunk).__name__}'.replace('VisionTransformer', 'ViT'),
                 'convolutional stem' if type(trunk.patch_embed).__name__ == 'HybridEmbed' else '',
                 'rotary positions' if self.rotates else '',
                 'post-norm' if 'PostNorm' in type(self.blocks[0]).__name__ else '',
                 '' if self.num_read else 'no CLS',
                 'attention pooling' if getattr(trunk, 'attn_pool', None) is not None else _READ[trunk.global_pool]]
        return ', '.join(part for part in parts if part)

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk._pos_embed(self.trunk.patch_embed(frames))
        x = self.trunk.norm_pre(x[0] if isinstance(x, tuple) else x)  # Eva returns the rotary positions as well
        return x[:, :self.num_read], x[:, self.num_read:]

    def norm_prompts(self, prompts: Tensor) -> Tensor:
        return self.trunk.norm_pre(prompts)

    def run_block(self, layer: int, x: Tensor, num_prefix: int, key_mask: Tensor | None) -> Tensor:
        """Run a block; see :meth:`Backbone.run_vision_block`."""
        kwargs = {} if key_mask is None else dict(attn_mask=key_mask[:, None, None])  # [N, T] -> [N, 1, 1, T]
        if self.rotates:
            kwargs['rope'] = self._rotary_positions(layer, x, num_prefix)
        return self.blocks[layer](x, **kwargs)

    def read(self, cls: Tensor, patches: Tensor) -> Tensor:
        x = cls if self.reads_cls else torch.cat([cls, patches], dim=2)
        x = self.trunk.forward_head(self.trunk.norm(x.flatten(0, 1)))
        return self.visual.head(x).unflatten(0, cls.shape[:2])  # [B * F, D] -> [B, F, D]

    def _rotary_positions(self, layer: int, x: Tensor, num_prefix: int) -> Tensor:
        """Return sine and cosine of every token of a sequence, [..., T, 2 * head_dim].

        Patches of all frames have the positions they have in their frame. Read-out tokens and prompts have none.
        """
        table = self.trunk.rope.get_embed()  # [M, 2 * head_dim], or one such table for every layer and head
        if getattr(self.trunk, 'rope_mixed', False):
            table = table[layer]
        frames = (x.shape[1] - num_prefix) // table.shape[-2]
        sine, cosine = table.new_zeros(num_prefix, table.shape[-1]).tensor_split(2, dim=-1)
        none = torch.cat([sine, cosine + 1], dim=-1)
        return torch.cat([none.expand(*table.shape[:-2], -1, -1), *[table] * frames], dim=-2)


def vision_port(visual: nn.Module, embed_dim: int) -> VisionPort:
    """Return the port of a vision tower.

    Args:
        visual (nn.Module): open_clip's vision tower.
        embed_dim (int): Number of dimensions of the embeddings (D).

    Returns:
        VisionPort: The port.

    Raises:
        ValueError: The tower returns no embedding.
    """
    from open_clip.transformer import VisionTransformer
    from timm.models import eva, vision_transformer

    if isinstance(visual, VisionTransformer):
        if visual.attn_pool is None and visual.pool_type == 'none':
            raise ValueError('a vision tower without pooling returns no embedding')
        return OpenClipViT(visual)
    # subclasses change how blocks are called or frames are read
    if type(getattr(visual, 'trunk', None)) in (eva.Eva, vision_transformer.VisionTransformer):
        return TimmViT(visual)
    return VisionPort(visual, embed_dim)


def additive_mask(key_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a mask of tokens to attend to into a mask for open_clip's blocks, [N, T] bool -> [N, 1, 1, T].

    open_clip would silently cast a boolean mask to 0 and 1. Broadcasting avoids a [T, T] mask in memory.
    """
    bias = torch.zeros_like(key_mask, dtype=dtype).masked_fill_(~key_mask, float('-inf'))
    return bias[:, None, None]
