"""Files of tensors: flipped bits are noticed, and what no file can hold is refused before it is touched."""
import io
import pickle
import tarfile
import time
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vop_mm.utils.paths import open_regular
from vop_mm.utils.tensor_files import (
    TensorFileError,
    check_finite,
    check_tensors,
    named_tensors,
    read_archive,
    read_safetensors,
    write_safetensors,
)

STATE = {'a': torch.arange(600.).reshape(20, 30), 'b.c': torch.ones(7, dtype=torch.bfloat16), 'n': torch.tensor(3)}


def read(path):
    with open_regular(path) as file:
        return read_safetensors(file)[0] if path.suffix == '.safetensors' else read_archive(file)


def equal(found):
    return found.keys() == STATE.keys() and all(torch.equal(found[k], v) and found[k].dtype == v.dtype
                                                for k, v in STATE.items())


@pytest.fixture(params=['.pth', '.safetensors', '.pth without checksums'])
def path(request, tmp_path):
    path = tmp_path / f'a{request.param.split()[0]}'
    if request.param == '.safetensors':
        path.write_bytes(write_safetensors(STATE, dict(meta='{"x": 1}')))
    else:
        torch.save(STATE, path)
    if 'without' in request.param:
        if not hasattr(torch.serialization, 'set_crc32_options'):
            pytest.skip('this torch always writes checksums')
        torch.serialization.set_crc32_options(False)
        try:
            torch.save(STATE, path)
        finally:
            torch.serialization.set_crc32_options(True)
    return path


def test_is_read_as_it_was_written(path):
    assert equal(read(path))
    if path.suffix == '.safetensors':
        assert equal(load_file(path))  # the checksum is in no other reader's way
        with open_regular(path) as file:
            assert read_safetensors(file)[1] == dict(meta='{"x": 1}')


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_every_flipped_bit_of_a_tensor_is_noticed(tmp_path, ending):
    """And no other bit gives other tensors: what passes is what was written."""
    content = write_safetensors(STATE, {}) if ending == '.safetensors' else _bytes(STATE)
    path, rng = tmp_path / f'a{ending}', np.random.default_rng(0)
    of_a = content.index(STATE['a'].numpy().tobytes())
    noticed, unnoticed = [], []
    for number in range(400):
        at = of_a + rng.integers(STATE['a'].nbytes) if number % 2 else rng.integers(len(content))
        flipped = bytearray(content)
        flipped[at] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            found = read(path)
        except Exception as e:
            noticed.append((at, e))
        else:
            unnoticed.append((at, found))
    assert all(equal(found) for _, found in unnoticed) and len(noticed) > 300
    inside = range(of_a, of_a + STATE['a'].nbytes)
    assert not [at for at, _ in unnoticed if at in inside]
    assert all(isinstance(e, TensorFileError) for at, e in noticed if at in inside)


@pytest.mark.parametrize('cut', [0, 1, 3, 30, 200, 0.5, 0.9, -1, -30])
def test_a_file_that_is_cut_off_is_an_error(path, cut):
    content = path.read_bytes()
    path.write_bytes(content[:int(cut * len(content)) if isinstance(cut, float) else cut])
    try:
        read(path)
    except Exception:  # whatever the two libraries raise
        return
    pytest.fail('it was read')


def test_bombs_are_refused_at_once(tmp_path):
    """Compressed members, members that share their content, and tensors that one number is stretched over."""
    content, start = _bytes({'a': torch.zeros(1000, 1000)}), time.perf_counter()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(tmp_path / 'a.pth', 'w', 8) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert (tmp_path / 'a.pth').stat().st_size < 20_000
    with pytest.raises(TensorFileError, match='compressed'):
        read(tmp_path / 'a.pth')

    overlapping = bytearray(content)
    directory = content.index(b'PK\x01\x02')
    entry = overlapping[directory:content.index(b'PK\x01\x02', directory + 4)]
    assert content.count(b'PK\x01\x02') < 20
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        largest = max(source.infolist(), key=lambda member: member.file_size)
    name = largest.filename.encode()
    at = content.rindex(name) - 46
    entry = content[at:at + 46 + len(name) + len(largest.extra)]
    end = content.index(b'PK\x05\x06') if b'PK\x05\x06' in content else len(content)
    first = content.index(b'PK\x01\x02')
    number = 200
    directory = entry * number
    tail = b'PK\x05\x06' + bytes(4) + number.to_bytes(2, 'little') * 2 + len(directory).to_bytes(4, 'little') \
        + first.to_bytes(4, 'little') + bytes(2)
    (tmp_path / 'b.pth').write_bytes(content[:first] + directory + tail)
    assert end > first
    with pytest.raises(TensorFileError, match='overlap'):
        read(tmp_path / 'b.pth')

    for stretched in (torch.zeros(1).expand(10**12), torch.zeros(1, 5).expand(10**11, 5)):
        torch.save({'state': [stretched]}, tmp_path / 'c.pth')
        found = read(tmp_path / 'c.pth')
        with pytest.raises(TensorFileError, match='state.0 is larger than the file'):
            check_tensors(found, (tmp_path / 'c.pth').stat().st_size)
    one = torch.zeros(1000, 1000)
    torch.save([one.T if i % 2 else one for i in range(1000)], tmp_path / 'd.pth')
    with pytest.raises(TensorFileError, match='is larger than the file'):
        check_tensors(read(tmp_path / 'd.pth'), (tmp_path / 'd.pth').stat().st_size)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_not_finite_is_named(value, dtype):
    tensor = torch.zeros(7, 9, dtype=dtype)
    check_finite({'a': tensor})
    tensor[3, 2] = value
    for content in ({'x': {'y': [0, tensor]}}, {'x': {'y': (0, tensor.T)}}):
        with pytest.raises(TensorFileError, match='^x.y.1 is not finite$'):
            check_tensors(content, 10**6)
    both = torch.tensor([float('inf'), float('-inf')], dtype=dtype)
    with pytest.raises(TensorFileError, match='both'):
        check_finite({'both': both})


def test_large_values_are_finite():
    check_finite({'a': torch.full((1000, ), 3e38), 'b': torch.full((1000, ), 6e4, dtype=torch.float16),
                  'c': torch.full((1000, ), 3e38, dtype=torch.float64), 'd': torch.empty(0),
                  'e': torch.full((100, ), 2**62), 'f': torch.ones(3, dtype=torch.bool)})


@pytest.mark.parametrize('value', [1e39, -1e300])
def test_what_becomes_infinite_in_a_model_is_named(value):
    with pytest.raises(TensorFileError, match='^a is not finite$'):
        check_tensors({'a': torch.full((2, ), value, dtype=torch.float64)}, 1000)


@pytest.mark.parametrize('tensor', [torch.eye(3).to_sparse(), torch.zeros(3, dtype=torch.complex64),
                                    torch.zeros(3, device='meta'),
                                    torch.quantize_per_tensor(torch.ones(3), 1., 0, torch.qint8)])
def test_other_kinds_of_tensors_are_refused(tensor):
    with pytest.raises(TensorFileError, match='a is not a plain tensor'):
        check_tensors({'a': tensor}, 1000)


def test_containers_that_hold_each_other():
    """2**100 ways to a tensor in a few hundred bytes, and a list that holds itself."""
    inner = [torch.zeros(2)]
    for _ in range(100):
        inner = [inner, inner]
    inner.append(inner)
    assert len(list(named_tensors(inner))) == 1


def encoded(codec, times):
    """A pickle whose one text is encoded again and again: twice as long each time."""
    text = b'X\6\0\0\0aaaaaaX\5\0\0\0utf-8\x86R'
    again = b'X' + len(codec).to_bytes(4, 'little') + codec.encode() + b'\x86R'
    return b'\x80\x02' + b'c_codecs\nencode\n' * times + text + again * (times - 1) + b'.'


@pytest.mark.parametrize('pickled', [encoded('hex', 40), encoded('quopri', 30),
                                     b'\x80\x02cbuiltins\nbytearray\n\x8a\x06' + (2**40).to_bytes(6, 'little')
                                     + b'\x85R.'], ids=['hex', 'quopri', 'bytearray'])
@pytest.mark.parametrize('name', ['a/data.pkl', 'a/DATA.PKL', None])
def test_a_hundred_bytes_are_not_made_gigabytes(tmp_path, pickled, name):
    """torch calls these with ``weights_only=True``. It finds its part of the archive in capital letters, too."""
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
        for part, content in ((name, pickled), ('a/version', '3\n'), ('a/byteorder', 'little')):
            archive.writestr(part or 'x', content)
    if name is None:  # the old form: three pickles in front of the content
        old = io.BytesIO()
        torch.save({}, old, _use_new_zipfile_serialization=False)
        (tmp_path / 'a.pth').write_bytes(old.getvalue().split(b'\x80\x02}q\x00.')[0] + pickled)
    start = time.perf_counter()
    with pytest.raises(pickle.UnpicklingError, match='unsupported: (_codecs encode|builtins bytearray)'):
        read(tmp_path / 'a.pth')
    assert time.perf_counter() - start < 1


def test_a_tar_archive_is_not_unpacked(tmp_path):
    """torch's form of 2016, in which older versions run what they find. Opening its FIFO would never end."""
    pipe = tarfile.TarInfo('storages')
    pipe.type = tarfile.FIFOTYPE
    first = tarfile.TarInfo('.....')  # five empty pickles
    with tarfile.open(tmp_path / 'a.pth', 'w') as archive:
        archive.addfile(first)
        archive.addfile(pipe)
    with pytest.raises(TensorFileError, match='tar archive'):
        read(tmp_path / 'a.pth')


def test_other_forms_that_torch_writes_are_read(tmp_path):
    content = dict(STATE, parameter=torch.nn.Parameter(torch.ones(3)), size=torch.ones(2, 3).shape, seen=Counter(a=1))
    for zipped in (True, False):
        torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
        found = read(tmp_path / 'a.pth')
        assert equal({name: found[name] for name in STATE}) and found['seen'] == content['seen']
        check_tensors(found, (tmp_path / 'a.pth').stat().st_size)


def test_one_long_name_before_many_items():
    """Put together for each of them it would take a thousand times the file."""
    start, long = time.perf_counter(), 'k' * 1_000_000
    check_tensors({long: [[] for _ in range(100_000)]}, 10**6)
    nested = [torch.zeros(1)]
    for _ in range(200):
        nested = [nested]
    for content, says in (({long: [torch.zeros(1)] * 100_000}, 'name of more than 1000'), (nested, 'too deeply')):
        with pytest.raises(TensorFileError, match=says):
            check_tensors(content, 10**6)
    assert time.perf_counter() - start < 5


def test_attributes_of_a_dict_are_refused():
    """``state.get`` would be a number."""
    state = OrderedDict(a=torch.zeros(1))
    state._metadata = {}  # a module's state has it
    check_tensors({'state_dict': state}, 1000)
    state.get = 3
    with pytest.raises(TensorFileError, match='has attributes'):
        check_tensors({'state_dict': state}, 1000)


def test_the_same_tensors_give_the_same_bytes():
    other_order = dict(reversed(STATE.items()))
    assert write_safetensors(STATE, dict(a='b', c='d')) == write_safetensors(other_order, dict(c='d', a='b'))


def _bytes(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
