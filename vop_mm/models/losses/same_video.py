"""Pairs of a batch that share a video, and the option that says how a loss treats them."""
import torch
from torch import Tensor

_OPTIONS = ('mask', 'soft', 'negative')


def check_same_video(value: str) -> str:
    """Return a valid value of the option ``same_video``.

    Args:
        value (str): ``'mask'``, ``'soft'`` or ``'negative'``.

    Returns:
        str: The value itself.

    Raises:
        ValueError: Unknown value.
    """
    if value not in _OPTIONS:
        raise ValueError(f"same_video must be 'mask', 'soft' or 'negative', got {value!r}")
    return value


def same_video_pairs(video_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Find the captions and videos of a batch that belong together.

    Args:
        video_ids (Tensor): Id of the video of each pair, [N] int64.

    Returns:
        tuple[Tensor, Tensor]: [N, N] bool each: caption i and video j are of the same video; i is j.
    """
    same = video_ids[:, None] == video_ids[None]
    return same, torch.eye(len(video_ids), dtype=torch.bool, device=video_ids.device)
