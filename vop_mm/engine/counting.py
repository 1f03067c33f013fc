"""Measure the cost of a method: parameters, checkpoint size, floating point operations."""
import io

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vop_mm.models.prompts import PromptProvider
from vop_mm.models.tuning import trainable_state_dict
from vop_mm.models.tuning.adapters import ParallelAdapter

from .checkpoint import describe

# Modules whose tensors the paper's counter includes.
_LAYERS = (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.Embedding, nn.RNNBase)


def count_trainable(model: nn.Module) -> int:
    """Count the trainable parameters.

    Args:
        model (nn.Module): A retriever.

    Returns:
        int: Number of scalars.
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_as_paper(model: nn.Module) -> int:
    """Count the trainable parameters as the paper does.

    The paper's numbers result from a counter that visits layers and prompts, and thus skips bare parameters of larger
    modules: attention's input projection, positional and class embeddings, the projections, the logit scale, and
    VoP^F's frame positions. These are counted only if nothing else trains (Proj).

    Args:
        model (nn.Module): A retriever.

    Returns:
        int: Number of scalars.
    """
    seen = {id(p): p for module in model.modules() if isinstance(module, PromptProvider) for p in module.parameters()}
    seen |= {id(p): p for module in model.modules() if isinstance(module, _LAYERS)
             for p in module.parameters(recurse=False)}
    return sum(p.numel() for p in seen.values() if p.requires_grad) or count_trainable(model)


def count_backbone_as_paper(model: nn.Module) -> int:
    """Count the backbone's parameters, 100% in the paper's table, as in :func:`count_as_paper`.

    Args:
        model (nn.Module): A retriever.

    Returns:
        int: Number of scalars; 119,826,432 for ViT-B/32.
    """
    added = {id(layer) for module in model.backbone.modules() if isinstance(module, ParallelAdapter)
             for layer in (module.down, module.up)}
    return sum(p.numel() for module in model.backbone.modules()
               if isinstance(module, _LAYERS) and id(module) not in added for p in module.parameters(recurse=False))


def checkpoint_bytes(model: nn.Module, cfg) -> int:
    """Return the file size of a published checkpoint.

    Args:
        model (nn.Module): A retriever.
        cfg (Config): Its config, which is included in the file.

    Returns:
        int: Size in bytes; 0 if nothing trains.
    """
    if not count_trainable(model):
        return 0
    state = {name: torch.empty_like(value, device='cpu') for name, value in trainable_state_dict(model).items()}
    checkpoint = dict(meta=dict(vop_mm=describe(model, cfg), cfg=cfg.pretty_text), state_dict=state)
    sink = _Sink()
    torch.save(checkpoint, sink)
    return sink.size


class _Sink(io.RawIOBase):
    """File object that only counts the bytes written."""

    def __init__(self) -> None:
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.size += len(data)
        return len(data)


def count_flops(model: nn.Module, num_frames: int, training: bool = False) -> int:
    """Count floating point operations of matrix products and attention for a video and a caption of full length.

    Args:
        model (nn.Module): A retriever; on the meta device nothing is computed.
        num_frames (int): Number of frames of the video.
        training (bool): Count a training step (forward, loss, backward) instead of a forward pass. Defaults to False.

    Returns:
        int: Number of operations; a multiplication and an addition count as two.
    """
    device = next(model.parameters()).device
    frames = torch.zeros(1, num_frames, 3, *model.backbone.image_size, device=device)
    tokens = torch.ones(1, model.text_tower.max_words, dtype=torch.int64, device=device)
    with FlopCounterMode(display=False) as counter:
        if training and count_trainable(model):
            model(frames, tokens, mode='loss')['loss'].backward()
        else:
            model(frames, tokens, mode='tensor')
    return counter.get_total_flops()
