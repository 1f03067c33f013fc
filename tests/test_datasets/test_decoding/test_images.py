"""Images as a viewer shows them."""
import io
import os

import numpy as np
import pytest
from PIL import Image

from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import read_image


def quarters() -> np.ndarray:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24], image[16:, 24:] = 30, 90, 160, 230
    return image


def reason(*args) -> str:
    with pytest.raises(VideoDecodeError) as error:
        read_image(*args)
    return error.value.reason


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF'])
def test_formats(tmp_path, kind):
    Image.fromarray(quarters()).save(tmp_path / 'a', kind)
    found = read_image(str(tmp_path / 'a'))
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - quarters()).mean() < 3


@pytest.mark.parametrize('orientation, change', [
    (1, lambda image: image), (2, np.fliplr), (3, lambda image: np.rot90(image, 2)), (4, np.flipud),
    (5, lambda image: image.transpose(1, 0, 2)), (6, lambda image: np.rot90(image, -1)),
    (7, lambda image: np.rot90(image, 2).transpose(1, 0, 2)), (8, np.rot90)])
def test_exif_orientation(tmp_path, orientation, change):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(quarters()).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), change(quarters()))


def test_sixteen_bits(tmp_path):
    values = (np.arange(32 * 48).reshape(32, 48) * 42).astype(np.uint16)
    for name in ('a.png', 'a.tiff'):
        Image.fromarray(values).save(tmp_path / name)
        found = read_image(tmp_path / name)
        np.testing.assert_allclose(found[..., 1], values / 257, atol=1)
        assert (found[..., 0] == found[..., 2]).all()


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.full((4, 4, 4), (200, 0, 0, 255), np.uint8)
    pixels[0], pixels[1, :, 3] = 0, 128
    image = Image.fromarray(pixels)
    image.save(tmp_path / 'a.png')
    found = read_image(tmp_path / 'a.png')[:, 0].tolist()
    assert found[0] == [255, 255, 255] and found[2] == [200, 0, 0]
    np.testing.assert_allclose(found[1], [227, 127, 127], atol=1)
    Image.fromarray(pixels[..., [0, 3]], 'LA').save(tmp_path / 'a.png')
    assert read_image(tmp_path / 'a.png')[:, 0].tolist()[::2] == [[255] * 3, [200] * 3]


def test_palettes(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), 'P')
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / 'a.png', transparency=1)
    assert read_image(tmp_path / 'a.png').tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize('mode', ['1', 'L', 'CMYK', 'YCbCr'])
def test_other_modes(tmp_path, mode):
    image = Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).convert(mode)
    image.save(tmp_path / 'a', 'TIFF' if mode != 'YCbCr' else 'JPEG')
    np.testing.assert_allclose(read_image(tmp_path / 'a').astype(int), 255, atol=2)


def test_an_open_file_and_its_name():
    file = io.BytesIO()
    Image.fromarray(quarters()).save(file, 'PNG')
    np.testing.assert_array_equal(read_image(file), quarters())
    with pytest.raises(VideoDecodeError, match="can't decode upload.png: not an image"):
        read_image(io.BytesIO(b'no image'), 'upload.png')


def test_what_is_refused(tmp_path, monkeypatch):
    for content in (b'no image', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(100)):
        (tmp_path / 'a.jpg').write_bytes(content)
        assert reason(tmp_path / 'a.jpg') == 'not an image (JPEG, PNG, WEBP, GIF, BMP, TIFF)'
    assert reason(tmp_path / 'none.jpg') == 'No such file or directory'
    os.mkfifo(tmp_path / 'fifo')
    assert reason(tmp_path / 'fifo') == 'not a regular file'
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / 'a.tiff')
    assert 'floating-point' in reason(tmp_path / 'a.tiff')
    Image.fromarray(quarters()).save(tmp_path / 'a.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'a.png').read_bytes()[:-40])
    assert 'cut' not in reason(tmp_path / 'cut.png') or reason(tmp_path / 'cut.png')
    monkeypatch.setenv('VOP_MM_MAX_IMAGE_PIXELS', str(32 * 48 - 1))
    assert 'an image of 48 x 32 pixels is too large' in reason(tmp_path / 'a.png')
