"""Read tensor files as data: torch archives and safetensors.

Nothing in a file is executed. Flipped bits are detected if the file contains checksums, and content that would take
much more memory than the size of the file is refused.
"""
import io
import json
import os
import pickle
import pickletools
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import torch
from torch import Tensor

_ZIP = b'PK\x03\x04'
_LOCAL_HEADER = 30  # bytes before a member's name
_CHUNK = 8 << 20
_MAX_HEADER = 100 << 20  # safetensors' own limit
_CHECKSUM = 'checksum'  # key in the metadata of safetensors
_DTYPES = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8,
                     torch.int16, torch.int32, torch.int64))
_SHARED = 4  # times the size of the file, for tensors that share memory
# What torch.save writes for tensors and plain values. Of the rest that torch accepts with weights_only=True, some turns
# a hundred bytes into gigabytes (codecs, bytearray), and some builds tensors that this project doesn't use.
_GLOBALS = re.compile(r'collections (OrderedDict|Counter)|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|'
                      r'torch Size|torch(\.cuda|\.storage)? \w+Storage')
_OLD_PICKLES = 5  # at the start of files in the format before 2020; the fourth is the content
_MAX_NAME, _MAX_NESTING = 1000, 100


class TensorFileError(ValueError):
    """A tensor file is damaged, or contains something that no file of this project does."""


def read_archive(file: BinaryIO, map_location=None):
    """Read an archive from ``torch.save`` with ``weights_only=True``, and verify its checksums, which torch ignores.

    The checksums are computed in a thread while torch reads.

    Args:
        file (BinaryIO): File from :func:`~vop_mm.utils.paths.open_regular`.
        map_location: See ``torch.load``. Defaults to None.

    Returns:
        Any: The content.

    Raises:
        TensorFileError: A checksum is wrong, parts of the archive are compressed or overlap, or it is a tar archive.
        pickle.UnpicklingError: The archive contains more than tensors and plain values.
        Exception: torch raises many types for a truncated file.
    """
    file.seek(0)
    if file.read(len(_ZIP)) != _ZIP:
        file.seek(0)
        if tarfile.is_tarfile(file):  # before 2.6, torch unpacks it and executes its content
            raise TensorFileError('it is a tar archive')
        file.seek(0)
        for _ in range(_OLD_PICKLES):
            _check_pickle(file)
        return _load(file, map_location)
    members = _members(file)
    with ThreadPoolExecutor(1) as pool:
        damaged = pool.submit(_damaged, file, members)
        try:
            content = _load(file, map_location)
        except Exception:
            if damaged.result() is None:
                raise
    if damaged.result() is not None:
        raise TensorFileError(f'it is damaged: the checksum of {damaged.result()} is wrong')
    return content


def read_safetensors(file: BinaryIO, device: str = 'cpu') -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file; verify the checksum if :func:`write_safetensors` wrote one.

    Args:
        file (BinaryIO): File from :func:`~vop_mm.utils.paths.open_regular`.
        device (str): Device of the tensors. Defaults to ``'cpu'``.

    Returns:
        tuple[dict[str, Tensor], dict[str, str]]: Tensors by name, and the metadata.

    Raises:
        TensorFileError: The checksum is wrong, or a tensor is not finite.
        Exception: The library fails on a damaged file.
    """
    from safetensors import safe_open

    with safe_open(_reopened(file), framework='pt', device=device) as opened:
        metadata = dict(opened.metadata() or {})
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    expected = metadata.pop(_CHECKSUM, None)
    if expected is not None and expected != _checksum(file):
        check_finite(tensors)  # more specific
        raise TensorFileError('it is damaged: its checksum is wrong')
    return tensors, metadata


def write_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Serialize tensors as safetensors with a checksum in the metadata. The same tensors give the same bytes.

    Args:
        tensors (Mapping[str, Tensor]): Tensors by name.
        metadata (Mapping[str, str]): Texts to store with them.

    Returns:
        bytes: File content for :func:`read_safetensors`.
    """
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(metadata))
    start = 8 + int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:start])
    # sorted, because the library writes metadata in any order
    header['__metadata__'] = dict(metadata, **{_CHECKSUM: _checksum(io.BytesIO(content))})
    text = json.dumps(header, sort_keys=True, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    return len(text).to_bytes(8, 'little') + text + content[start:]


def check_tensors(content, size: int) -> None:
    """Refuse tensors that are not finite, or larger than a file of this size can hold.

    Args:
        content (Any): Content of the file: tensors in dicts, lists and tuples.
        size (int): File size in bytes.

    Raises:
        TensorFileError: A tensor is refused; the message names it.
    """
    total = 0
    for name, tensor in named_tensors(content):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.dtype not in _DTYPES:
            raise TensorFileError(f'{name} is not a plain tensor')
        # one number may be expanded to any shape, or many tensors may share the same memory
        total += tensor.numel() * tensor.element_size()
        if total > _SHARED * size or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise TensorFileError(f'{name} is larger than the file')
    check_finite(named_tensors(content))


def check_finite(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> None:
    """Refuse NaN and infinity, and values that overflow in float32, the models' precision.

    Args:
        tensors (Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]): Tensors by name.

    Raises:
        TensorFileError: A tensor is refused; the message names it.
    """
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if tensor.is_floating_point() and tensor.numel():
            # one pass without a copy; only very large values sum to infinity without containing it
            if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.float().isfinite().all():
                raise TensorFileError(f'{name} is not finite')


def named_tensors(content) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in dicts, lists and tuples, with names like ``optimizer.state.0.exp_avg``; each container once.

    Args:
        content (Any): Content of a file.

    Yields:
        tuple[str, Tensor]: Name and tensor.

    Raises:
        TensorFileError: A name is too long, nesting too deep, or a dict has attributes, which may shadow methods.
    """
    # A place is (place of the parent, key); names are only formatted for tensors, because one long key may precede any
    # number of items.
    todo, seen = [(None, content, 0)], set()
    while todo:
        place, value, depth = todo.pop()
        if isinstance(value, Tensor):
            yield _name(place), value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            if depth > _MAX_NESTING or getattr(value, '__dict__', {}).keys() - {'_metadata'}:
                raise TensorFileError('it is nested too deeply' if depth > _MAX_NESTING else 'a dict has attributes')
            items = value.items() if isinstance(value, dict) else enumerate(value)
            todo += [((place, key), item, depth + 1) for key, item in items
                     if isinstance(item, (Tensor, dict, list, tuple))]


def _name(place: tuple | None) -> str:
    keys, length = [], 0
    while place is not None:
        place, key = place
        keys.append(str(key))
        length += len(keys[-1]) + 1
        if length > _MAX_NAME:
            raise TensorFileError(f'a tensor has a name of more than {_MAX_NAME} characters')
    return '.'.join(reversed(keys))


def _check_pickle(file: BinaryIO) -> None:
    """Check a pickle for the functions that it would call; leave the file position after it."""
    for code, argument, _ in pickletools.genops(file):
        if code.name in ('STACK_GLOBAL', 'INST', 'EXT1', 'EXT2', 'EXT4') or (
                code.name == 'GLOBAL' and not _GLOBALS.fullmatch(argument)):
            raise pickle.UnpicklingError(f'unsupported: {argument if argument else code.name}')


def _load(file: BinaryIO, map_location):
    # by handle, not by name: the thread runs while such a file is read
    with open(file.fileno(), 'rb', closefd=False) as same, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about pickles of other versions, which are read, or refused with a reason
        same.seek(0)
        return torch.load(same, map_location=map_location, weights_only=True)


def _members(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """Return the members of an archive, after checking that they do not exceed the file, and checking their pickles."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise TensorFileError('it is compressed')
        if sum(member.file_size for member in members) > os.fstat(file.fileno()).st_size:
            raise TensorFileError('its parts overlap')
        for member in members:
            if member.filename.lower().endswith('data.pkl'):  # torch ignores case here
                _check_pickle(io.BytesIO(os.pread(file.fileno(), member.file_size, _start(file, member))))
    return members


def _damaged(file: BinaryIO, members: list[zipfile.ZipInfo]) -> str | None:
    """Return the name of an archive member with a wrong checksum; None if there is none."""
    if not any(member.CRC for member in members):  # torch can be configured to write none
        return None
    # read, not mapped: a mapped file that is truncated in the meantime kills the process
    buffer = memoryview(bytearray(_CHUNK))
    for member in members:
        at, left, crc = _start(file, member), member.file_size, 0
        while left and (count := os.preadv(file.fileno(), [buffer[:left]], at)):
            crc = zlib.crc32(buffer[:count], crc)
            at, left = at + count, left - count
        if left or crc != member.CRC:
            return member.filename
    return None


def _start(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Return the offset of a member's content."""
    header = os.pread(file.fileno(), _LOCAL_HEADER, member.header_offset)
    # lengths of the name and of the extra field, which may differ from those in the directory
    return member.header_offset + _LOCAL_HEADER + sum(int.from_bytes(header[i:i + 2], 'little') for i in (26, 28))


def _checksum(file: BinaryIO) -> str:
    """Compute the checksum of a safetensors file, excluding the checksum itself and independent of metadata order."""
    file.seek(0)
    length = int.from_bytes(file.read(8), 'little')
    if length > _MAX_HEADER:
        raise TensorFileError('its header is too long')
    header = json.loads(file.read(length))
    metadata = header.setdefault('__metadata__', {})
    metadata.pop(_CHECKSUM, None)
    checksum = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    while chunk := file.read(_CHUNK):
        checksum = zlib.crc32(chunk, checksum)
    return f'{checksum:08x}'


def _reopened(file: BinaryIO) -> str:
    """Return a path to this very file for libraries that take no handle, even if its name was reused."""
    return f'/proc/self/fd/{file.fileno()}' if os.path.isdir('/proc/self/fd') else file.name
