"""Query banks from the training split, for QB-Norm."""
from pathlib import Path

from ..dump import read_dump
from .blocks import Array, FeatureRows


def load_query_bank(path: str | Path, text_features: Array, video_features: Array) -> dict[str, FeatureRows]:
    """Load the query banks of both directions from embeddings of the training split.

    Args:
        path (str | Path): ``.npz`` with ``text_features`` [B, D] and ``video_features`` [W, D] of the same model, as
            written by ``tools/test.py --dump``; if it has a ``split``, this must be a training split.
        text_features (ndarray | Tensor): Text features of the evaluated split, [num_texts, D].
        video_features (ndarray | Tensor): Video features of the evaluated split, [num_videos, D].

    Returns:
        dict[str, FeatureRows]: ``t2v``: training captions with the videos, [B, num_videos]; ``v2t``: training videos
        with the captions, [W, num_texts].

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a dump, is not of a training split, or has features of another size.
    """
    try:
        data = read_dump(path, 'text_features', 'video_features')
    except FileNotFoundError:
        raise FileNotFoundError(f'query bank not found: {path}') from None
    texts, videos, split = data['text_features'], data['video_features'], str(data.get('split', 'train'))
    if not split.startswith('train'):
        raise ValueError(f'the query bank {path} is of the split {split}: queries must come from the training split')
    try:
        return dict(t2v=FeatureRows(texts, video_features), v2t=FeatureRows(videos, text_features))
    except ValueError as e:
        raise ValueError(f'the query bank {path} does not fit: {e}') from None
