"""Reading of weights from a TorchScript archive without executing its code.

``torch.jit.load`` does execute code for some archives.
"""
import collections
import io
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch
from torch import Tensor

_DTYPES = dict(HalfStorage=torch.float16, BFloat16Storage=torch.bfloat16, FloatStorage=torch.float32,
               DoubleStorage=torch.float64, BoolStorage=torch.bool, ByteStorage=torch.uint8, CharStorage=torch.int8,
               ShortStorage=torch.int16, IntStorage=torch.int32, LongStorage=torch.int64)


# OpenAI's largest archive has 1,500 modules, 500 kB of code and 80 kB of pickled modules.
_MAX_TEXT, _MAX_MODULES = 32 << 20, 100_000
_DECLARED = re.compile(r'\s*__(?:parameters|buffers)__ = \[(.*)\]')


def is_torchscript(file: BinaryIO) -> bool:
    """Return whether a file is a TorchScript archive, that is, a zip file with code in it."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.split('/')[1:2] == ['code'] for name in archive.namelist())


def read_torchscript(file: BinaryIO) -> dict[str, Tensor]:
    """Read the parameters and buffers of a TorchScript archive.

    Args:
        file (BinaryIO): File to read.

    Returns:
        dict[str, Tensor]: State dict in the stored dtype (float16 in OpenAI's archives).

    Raises:
        pickle.UnpicklingError: The archive holds more than modules with tensors and plain values.
        ValueError: Reading the archive would take far more memory or time than its size warrants.
    """
    with zipfile.ZipFile(file) as archive:
        files = archive.namelist()
        root = next(name for name in files if name.endswith('/data.pkl') and name.count('/') == 1)[:-len('data.pkl')]
        # code and modules may be compressed, tensors never are
        texts = [member for member in archive.infolist() if member.filename.endswith(('.py', 'data.pkl'))]
        tensors = [member for member in archive.infolist() if member.filename.startswith(f'{root}data/')]
        if sum(member.file_size for member in texts) > _MAX_TEXT:
            raise ValueError('its code and modules are too large')
        if (any(member.compress_type != zipfile.ZIP_STORED for member in tensors)
                or sum(member.file_size for member in tensors) > os.fstat(file.fileno()).st_size):
            raise ValueError('its tensors are compressed, or overlap')
        # other attributes may be tensors as well; the code, read as text, says which ones belong to the state dict
        lines = [line for name in files if name.endswith('.py') for line in archive.read(name).decode().splitlines()]
        declared = {name for line in lines if (found := _DECLARED.match(line))
                    for name in re.findall(r'"(\w+)"', found[1])}
        pickled = archive.read(f'{root}data.pkl')
        for code, number, _ in pickletools.genops(pickled):
            if code.name.endswith('PUT') and isinstance(number, int) and number > len(pickled):
                raise ValueError('it counts further than it is long')  # Python would allocate a list of that length
        module = _Unpickler(io.BytesIO(pickled), archive, root).load()
    state = {}
    for count, (name, value) in enumerate(_attributes(module), 1):
        if count > _MAX_MODULES or len(name) > 1000:
            raise ValueError('it holds too many modules, or one in itself')
        if isinstance(value, Tensor) and name.rpartition('.')[2] in declared:
            state[name] = value
    return state


def _attributes(module) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of all attributes of a module and its submodules."""
    for name, value in vars(module).items():
        yield name, value
        if isinstance(value, _Module):
            yield from ((f'{name}.{inner}', value) for inner, value in _attributes(value))


class _Module:
    """Placeholder for every class named in an archive: it keeps attributes and has no code."""

    def __setstate__(self, state) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError('a module restores itself with code of its own')
        self.__dict__.update(state)


class _Unpickler(pickle.Unpickler):

    def __init__(self, file, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root
        self._storages = {}

    def find_class(self, module: str, name: str):
        if module == '__torch__' or module.startswith('__torch__.'):
            return _Module
        if module == 'torch._utils' and name == '_rebuild_tensor_v2':
            return _view
        if module == 'torch' and name in _DTYPES:
            return _DTYPES[name]
        if module == 'torch.jit._pickle' and name.startswith(('build_', 'restore_')):
            return lambda value, *_: value  # lists of plain values, annotated with their type
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f'it names {module}.{name}')

    def persistent_load(self, pid) -> Tensor:
        _, dtype, key, _, count = pid
        if (key, dtype) not in self._storages:
            data = bytearray(self._archive.read(f'{self._root}data/{key}'))
            self._storages[key, dtype] = torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)
        return self._storages[key, dtype]


def _view(storage: Tensor, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
    return storage.as_strided(size, stride, offset)
