"""Read the architecture of a CLIP from a file beside its weights."""
from pathlib import Path

from .json_text import decode_text, parse_json

_MAX_BYTES = 100_000


def read_architecture(name: str, weights: str | None) -> dict | None:
    """Read the open_clip model config ``NAME.json`` in the folder of a weights file.

    Weights that come with their architecture can be used under its name wherever they are, without being registered.

    Args:
        name (str): Name of the architecture.
        weights (str, optional): Weights file, or anything else that names weights.

    Returns:
        dict | None: The model config, unchecked; None if there is no such file.

    Raises:
        ValueError: The file is not a model config.
    """
    if weights is None or not Path(weights).is_file():
        return None
    path = Path(weights).with_name(f'{name}.json')
    if not path.is_file():
        return None
    with path.open('rb') as file:
        data = file.read(_MAX_BYTES + 1)
    try:
        content = parse_json(decode_text(data)) if len(data) <= _MAX_BYTES else None
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    if not isinstance(content, dict):
        raise ValueError(f'{path}: not an open_clip model config')
    return content
