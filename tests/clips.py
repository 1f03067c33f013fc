"""Small CLIPs, retrievers, frames and captions for tests."""
import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from vop_mm.registry import MODELS

DATA = Path(__file__).with_name('data')
SOT, EOT = 298, 299
SMALL = dict(embed_dim=48, quick_gelu=True,
             vision_cfg=dict(image_size=32, patch_size=16, width=64, head_width=32, layers=3),
             text_cfg=dict(context_length=77, vocab_size=300, width=96, heads=3, layers=4))


def build_clip(arch: str | dict = SMALL, weights: str | None = None, seed: int = 0, rough: float = 0.05, **kwargs):
    """A CLIP; without weights, random ones in which no bias is 0 and no factor 1 (``rough``)."""
    torch.manual_seed(seed)
    clip = MODELS.build(dict(type='OpenCLIP', arch=copy.deepcopy(arch), weights=weights, **kwargs))
    if weights is None:
        roughen(clip, rough)
    return clip


def build_retriever(arch: str | dict = SMALL, weights: str | None = None, seed: int = 0, rough: float = 0.05,
                    dtype: torch.dtype = torch.float32, backbone_options: dict | None = None, **kwargs):
    """A retriever in eval mode, from the keyword arguments of ``TextVideoRetriever``."""
    torch.manual_seed(seed)
    backbone = dict(type='OpenCLIP', arch=copy.deepcopy(arch), weights=weights, **(backbone_options or {}))
    model = MODELS.build(dict(type='TextVideoRetriever', backbone=backbone, **copy.deepcopy(kwargs)))
    if weights is None:
        roughen(model.backbone, rough)
    return model.to(dtype).eval()


def generic(num_tokens: int, **kwargs) -> dict:
    """Config of prompts that are large enough to matter."""
    return dict(type='GenericPrompt', num_tokens=num_tokens, init_std=0.5, **kwargs)


@torch.no_grad()
def roughen(module: nn.Module, std: float) -> None:
    """Add noise to every parameter but the logit scale."""
    if not std:
        return
    for name, parameter in module.named_parameters():
        if not name.endswith('logit_scale'):
            parameter.add_(torch.randn_like(parameter) * std)


def random_frames(videos: int, frames: int, size: int = 32, seed: int = 1, dtype=torch.float32) -> Tensor:
    """CLIP-normalized pixels, [B, F, 3, H, W]."""
    return torch.randn(videos, frames, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_tokens(lengths: list[int], width: int = 77, sot: int = SOT, eot: int = EOT, seed: int = 2) -> Tensor:
    """Captions of so many tokens, start and end of text included, [n, width]."""
    tokens = torch.randint(1, sot, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    for row, length in zip(tokens, lengths):
        row[0], row[length - 1], row[length:] = sot, eot, 0
    return tokens
