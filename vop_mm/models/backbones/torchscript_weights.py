"""The weights in a TorchScript archive, without running the code in it (``torch.jit.load`` does, on some archives)."""
import collections
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = dict(HalfStorage=torch.float16, BFloat16Storage=torch.bfloat16, FloatStorage=torch.float32,
               DoubleStorage=torch.float64, BoolStorage=torch.bool, ByteStorage=torch.uint8, CharStorage=torch.int8,
               ShortStorage=torch.int16, IntStorage=torch.int32, LongStorage=torch.int64)


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive: a zip file with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split('/')[1:2] == ['code'] for name in archive.namelist())


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive.

    Args:
        path (str | Path): The file.

    Returns:
        dict[str, Tensor]: Its state dict, as it is stored (OpenAI's archives: in float16).

    Raises:
        pickle.UnpicklingError: It holds more than modules with tensors and plain values.
    """
    with zipfile.ZipFile(path) as archive:
        files = archive.namelist()
        root = next(name for name in files if name.endswith('/data.pkl') and name.count('/') == 1)[:-len('data.pkl')]
        # other attributes may be tensors as well; which ones belong to the state dict stands in the code, as text
        code = '\n'.join(archive.read(name).decode() for name in files if name.endswith('.py'))
        declared = set(re.findall(r'"(\w+)"', ' '.join(re.findall(r'__(?:parameters|buffers)__ = \[(.*)\]', code))))
        with archive.open(f'{root}data.pkl') as file:
            module = _Unpickler(file, archive, root).load()
    return dict(_tensors(module, '', declared))


def _tensors(module, prefix: str, declared: set[str]):
    for name, value in vars(module).items():
        if isinstance(value, _Module):
            yield from _tensors(value, f'{prefix}{name}.', declared)
        elif isinstance(value, Tensor) and name in declared:
            yield prefix + name, value


class _Module:
    """Stands in for every class that an archive brings: it keeps attributes and has no code."""

    def __setstate__(self, state) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError('a module restores itself with code of its own')
        self.__dict__.update(state)


class _Unpickler(pickle.Unpickler):

    def __init__(self, file, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str):
        if module == '__torch__' or module.startswith('__torch__.'):
            return _Module
        if module == 'torch._utils' and name == '_rebuild_tensor_v2':
            return _view
        if module == 'torch' and name in _DTYPES:
            return _DTYPES[name]
        if module == 'torch.jit._pickle' and name.startswith(('build_', 'restore_')):
            return lambda value, *_: value  # lists of plain values, marked with their type
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f'it names {module}.{name}')

    def persistent_load(self, pid) -> Tensor:
        _, dtype, key, _, count = pid
        data = self._archive.read(f'{self._root}data/{key}')
        return torch.frombuffer(bytearray(data), dtype=dtype) if count else torch.empty(0, dtype=dtype)


def _view(storage: Tensor, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
    return storage.as_strided(size, stride, offset)
