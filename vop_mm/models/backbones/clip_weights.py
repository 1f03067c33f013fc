"""Safe reading of CLIP weights in every format in which they are published."""
import os
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from vop_mm.utils.paths import open_regular
from vop_mm.utils.tensor_files import check_tensors, read_archive, read_safetensors

from .torchscript_weights import is_torchscript, read_torchscript

# OpenAI's archives store three numbers along with the weights.
_OPENAI_EXTRAS = ('input_resolution', 'context_length', 'vocab_size')


class ClipWeights(NamedTuple):
    """State dict with open_clip's names, in float32; integers, such as the counts of batch norms, keep their type.

    Attributes:
        state_dict (dict[str, Tensor]): The weights.
        from_openai (bool): Whether the file is in OpenAI's format; such weights were trained with quick-GELU.
    """
    state_dict: dict[str, Tensor]
    from_openai: bool


def read_clip_weights(path: str | Path) -> ClipWeights:
    """Read a local file of CLIP weights.

    Supported are OpenAI's TorchScript archives, plain state dicts (``torch.save``), training checkpoints with a
    ``state_dict`` entry, and safetensors. No code in a file is executed: pickles are read with
    ``weights_only=True``, and only the tensors of an archive are read.

    Args:
        path (str | Path): File to read.

    Returns:
        ClipWeights: The weights in float32.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file can't be read as weights.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise FileNotFoundError(f'CLIP weights not found: {path}')
    if path.suffix in ('.npz', '.npy'):
        raise ValueError(f'{path}: NumPy weights of big_vision are not read; load them with open_clip, and save '
                         'the state dict of its model')
    from_openai = False
    try:
        with open_regular(path) as file:
            if path.suffix == '.safetensors':
                state = read_safetensors(file)[0]
            elif from_openai := is_torchscript(file):
                # not open_clip's load_openai_model: it executes the file's code and rounds float32 weights to float16
                state = read_torchscript(file)
            else:
                state = read_archive(file, 'cpu')
            check_tensors(state, os.fstat(file.fileno()).st_size)
    except Exception as e:  # the three readers fail in a dozen ways; the user needs the file and the reason
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise ValueError(f'{path} is not a readable file of CLIP weights: {reason}') from e
    if isinstance(state, dict) and isinstance(state.get('state_dict'), dict):
        state = state['state_dict']
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for k, v in state.items()
                                              if k not in _OPENAI_EXTRAS):
        raise ValueError(f'{path} holds no state dict of tensors')
    from_openai = from_openai or any(k in state for k in _OPENAI_EXTRAS)
    state = {k.removeprefix('module.'): v.float() if v.is_floating_point() else v for k, v in state.items()
             if k not in _OPENAI_EXTRAS}
    return ClipWeights(state, from_openai)
