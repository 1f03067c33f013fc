"""Selection of training videos that are held out for model selection."""
import hashlib
from collections.abc import Iterable


def hold_out(video_ids: Iterable[str], fraction: float, seed: int = 0) -> list[str]:
    """Choose the videos of the dev split.

    The choice is made by a hash of seed and id, not by a random generator: it is the same on every machine and version,
    does not depend on the order of the videos, and a larger fraction includes the videos of a smaller one.

    Args:
        video_ids (Iterable[str]): Training videos.
        fraction (float): Share to hold out, below 1. With 0, no video is held out.
        seed (int): Random seed. Defaults to 0.

    Returns:
        list[str]: At least one video, unless the fraction is 0, in the given order.

    Raises:
        ValueError: There are fewer than two videos, or none would be left for training.
    """
    if fraction == 0:
        return []
    video_ids = list(video_ids)
    number = max(1, round(fraction * len(video_ids)))
    if number >= len(video_ids):
        raise ValueError(f'a dev split of {number} of {len(video_ids)} training videos leaves nothing to train on')
    chosen = set(sorted(video_ids, key=lambda video_id: _hash(seed, video_id))[:number])
    return [video_id for video_id in video_ids if video_id in chosen]


def choose_caption(video_id: str, captions: list[str], seed: int = 0) -> str:
    """Choose one of a video's captions by a hash of seed and id.

    Args:
        video_id (str): Id of the video.
        captions (list[str]): At least one caption.
        seed (int): Random seed. Defaults to 0.

    Returns:
        str: The caption.
    """
    return captions[_hash(seed, video_id) % len(captions)]


def _hash(seed: int, video_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f'{seed}/{video_id}'.encode(errors='surrogatepass')).digest(), 'big')
