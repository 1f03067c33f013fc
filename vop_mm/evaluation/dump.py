"""Reading of files written by ``tools/test.py --dump``: embeddings of a split, possibly from an untrusted source."""
import os
import zipfile
from pathlib import Path

import numpy as np

from vop_mm.utils.paths import open_regular

# A small file may expand to any size. Embeddings barely compress, so regular files never exceed these limits.
_EXPANDED, _RATIO = 1 << 28, 20


def read_dump(path: str | Path, *names: str) -> dict[str, np.ndarray]:
    """Read the arrays of a dump and check that they are consistent. Pickled objects are rejected.

    Args:
        path (str | Path): ``.npz`` file.
        *names (str): Required arrays.

    Returns:
        dict[str, np.ndarray]: All arrays of the file. If present, ``text_features`` is [T, D] and ``video_features``
        [V, D], both floating point, ``text_to_video`` is [T] with values in [0, V), ``captions`` has T entries and
        ``video_ids`` V.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a dump, is damaged, or lacks an array.
    """
    try:
        with open_regular(path) as file:
            arrays = _read(file)
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f'no such file: {path}') from None
    except Exception as e:  # a damaged archive fails in a dozen ways, none of which names the file
        reason = ' '.join(str(e).split()) or type(e).__name__
        raise ValueError(f'{path} was not written by tools/test.py --dump: {reason}') from None
    lacking = [name for name in names if name not in arrays]
    if lacking:
        raise ValueError(f'{path} was not written by tools/test.py --dump: it lacks {" and ".join(lacking)}')
    problem = _problem(arrays)
    if problem:
        raise ValueError(f'{path} is damaged: {problem}')
    return arrays


def _read(file) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        stored = min(sum(item.compress_size for item in archive.infolist()), os.fstat(file.fileno()).st_size)
        expanded = sum(item.file_size for item in archive.infolist())
    if expanded > max(_EXPANDED, _RATIO * stored):
        raise ValueError(f'{stored:,} bytes of it expand to {expanded:,}')
    file.seek(0)
    with np.load(file, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    for name, array in arrays.items():
        if array.size and not array.itemsize or 0 in array.shape[1:]:
            raise ValueError(f'{name} holds {len(array):,} items of no length')
    return arrays


def _problem(arrays: dict[str, np.ndarray]) -> str | None:
    """Return a description of the first inconsistency, or None."""
    texts, videos = (arrays.get(f'{kind}_features') for kind in ('text', 'video'))
    for name, features in (('text_features', texts), ('video_features', videos)):
        if features is not None and (features.ndim != 2 or not np.issubdtype(features.dtype, np.floating)):
            return f'{name} has the shape {features.shape} and the type {features.dtype}'
    if texts is None or videos is None:
        return None
    if texts.shape[1] != videos.shape[1]:
        return f'texts have {texts.shape[1]} values, videos {videos.shape[1]}'
    for name, length in (('text_to_video', len(texts)), ('captions', len(texts)), ('video_ids', len(videos))):
        if name in arrays and arrays[name].shape != (length, ):
            return f'{name} has the shape {arrays[name].shape} in place of {(length, )}'
    owner = arrays.get('text_to_video')
    if owner is not None and (not np.issubdtype(owner.dtype, np.integer) or len(owner) and
                              not 0 <= owner.min() <= owner.max() < len(videos)):
        return f'text_to_video has indices outside the {len(videos)} videos'
    return None
