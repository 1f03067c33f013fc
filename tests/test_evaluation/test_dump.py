"""Dumps of others: what doesn't fit is refused in one line, and nothing is run or blown up."""
import os
import zipfile

import numpy as np
import pytest

from vop_mm.evaluation.dump import read_dump

GOOD = dict(text_features=np.eye(3, 4, dtype=np.float32), video_features=np.eye(2, 4, dtype=np.float32),
            text_to_video=np.array([0, 1, 1]), captions=np.array(['a', 'b', 'c']), video_ids=np.array(['x', 'y']))


def test_arrays_come_back_as_they_were(tmp_path):
    np.savez(tmp_path / 'a.npz', **GOOD)
    found = read_dump(tmp_path / 'a.npz', *GOOD)
    assert found.keys() == GOOD.keys() and all(np.array_equal(found[name], GOOD[name]) for name in GOOD)


@pytest.mark.parametrize(('changes', 'says'), [
    (dict(text_to_video=np.array([0, 1, 2])), 'has indices outside the 2'),
    (dict(text_to_video=np.array([0, -1, 1])), 'has indices outside the 2'),
    (dict(text_to_video=np.array([0., 1., 1.])), 'has indices outside the 2'),
    (dict(text_to_video=np.array([0, 1])), 'text_to_video has the shape'),
    (dict(captions=np.array(['a'])), 'captions has the shape'),
    (dict(video_ids=np.array([['x', 'y']])), 'video_ids has the shape'),
    (dict(text_features=np.eye(3, 5)), 'texts have 5 values, videos 4'),
    (dict(text_features=np.array(1.)), r'text_features has the shape \(\)'),
    (dict(video_features=np.array([['a'] * 4] * 2)), 'video_features has .* the type'),
])
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, says):
    np.savez(tmp_path / 'a.npz', **{**GOOD, **changes})
    with pytest.raises(ValueError, match=f'a.npz is damaged: .*{says}'):
        read_dump(tmp_path / 'a.npz')


def test_a_small_file_that_expands_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w', zipfile.ZIP_DEFLATED) as archive, \
            archive.open('text_features.npy', 'w') as file:
        np.lib.format.write_array_header_1_0(file, dict(descr='<f4', fortran_order=False, shape=(1 << 20, 80)))
        for _ in range(80):
            file.write(bytes(1 << 22))
    assert os.path.getsize(tmp_path / 'a.npz') < 1 << 20
    with pytest.raises(ValueError, match=r'a.npz was not written by tools/test.py --dump: .* expand to 335,544,'):
        read_dump(tmp_path / 'a.npz')


@pytest.mark.parametrize(('descr', 'shape'), [('<f4', (10**9, 0)), ('<U0', (10**9, )), ('|V0', (10**9, ))])
def test_items_of_no_length_are_refused(tmp_path, descr, shape):
    """A thousand million of them take no byte, until somebody goes through them."""
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive, archive.open('text_features.npy', 'w') as file:
        np.lib.format.write_array_header_1_0(file, dict(descr=descr, fortran_order=False, shape=shape))
    with pytest.raises(ValueError, match='1,000,000,000 items of no length'):
        read_dump(tmp_path / 'a.npz')


@pytest.mark.parametrize('content', [b'', b'text', b'PK\x03\x04' + bytes(100)])
def test_another_file_is_named(tmp_path, content):
    (tmp_path / 'a.npz').write_bytes(content)
    with pytest.raises(ValueError, match='a.npz was not written by tools/test.py --dump') as error:
        read_dump(tmp_path / 'a.npz')
    assert '\n' not in str(error.value)


def test_a_flipped_bit_is_noticed(tmp_path):
    np.savez(tmp_path / 'a.npz', **dict(GOOD, text_features=np.ones((3, 4), np.float32)))
    content = bytearray((tmp_path / 'a.npz').read_bytes())
    content[content.index(np.float32(1).tobytes()) + 2] ^= 1
    (tmp_path / 'a.npz').write_bytes(content)
    with pytest.raises(ValueError, match='Bad CRC-32'):
        read_dump(tmp_path / 'a.npz')


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / 'a.npz', **dict(GOOD, captions=np.array([{}, {}, {}], dtype=object)))
    with pytest.raises(ValueError, match='allow_pickle=False'):
        read_dump(tmp_path / 'a.npz')


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / 'a.npz')
    with pytest.raises(ValueError, match='not a regular file'):
        read_dump(tmp_path / 'a.npz')
