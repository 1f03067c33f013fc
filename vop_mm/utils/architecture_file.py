"""Read what lies beside the weights of a CLIP: its architecture, and how its frames are preprocessed."""
import os
from pathlib import Path

from .json_text import decode_text, parse_json

_MAX_BYTES = 100_000
_OPEN_CLIP = 'open_clip_config.json'


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
    return _read_beside(weights, f'{name}.json')


def read_preprocessing(weights: str) -> tuple[Path, dict] | None:
    """Read the ``preprocess_cfg`` of ``open_clip_config.json``, which open_clip publishes beside weights.

    Args:
        weights (str): Weights file, or anything else that names weights.

    Returns:
        tuple[Path, dict] | None: The file and its values, unchecked; None if there is no such file, or it has none.

    Raises:
        ValueError: The file is not of open_clip's form.
    """
    content = _read_beside(weights, _OPEN_CLIP) or {}
    found, path = content.get('preprocess_cfg'), Path(weights).with_name(_OPEN_CLIP)
    if found is not None and not isinstance(found, dict):
        raise ValueError(f'{path}: preprocess_cfg is not a dict')
    return None if found is None else (path, found)


def _read_beside(weights: str | None, name: str) -> dict | None:
    """Return the content of a JSON file in the folder of a weights file; None if either does not exist."""
    if weights is None or not os.path.isfile(os.path.expanduser(weights)):
        return None
    path = Path(os.path.expanduser(weights)).with_name(name)
    if not path.is_file():
        return None
    with path.open('rb') as file:
        data = file.read(_MAX_BYTES + 1)
    try:
        content = parse_json(decode_text(data)) if len(data) <= _MAX_BYTES else None
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    if not isinstance(content, dict):
        raise ValueError(f'{path}: not an open_clip config')
    return content
