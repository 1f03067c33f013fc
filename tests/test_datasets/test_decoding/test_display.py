"""How pictures are shown: turned, with square pixels, HDR as SDR."""
from fractions import Fraction

import numpy as np
import pytest

from tests.hdr import HLG, PQ, hlg, pq
from tests.videos import encode_video
from vop_mm.datasets.decoding import PyAVReader
from vop_mm.datasets.decoding.display import is_mirrored, orient, square_width, to_sdr


def gray(signal: float) -> np.ndarray:
    return np.full((2, 2, 3), round(65535 * signal), np.uint16)


def test_a_matrix_moves_every_pixel_to_its_place():
    """Against the definition: (x, y) is shown at (a x + c y, b x + d y), moved to where nothing is negative."""
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for a, b, c, d in ((1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0),
                       (0, 1, 1, 0), (0, -1, -1, 0)):
        places = {(a * x + c * y, b * x + d * y): image[y, x] for y in range(3) for x in range(4)}
        left, top = (min(place[i] for place in places) for i in range(2))
        found = orient(image, [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
        assert {(x + left, y + top): value for (y, x), value in np.ndenumerate(found)} == places
        assert is_mirrored([a, b, 0, c, d, 0, 0, 0, 1]) == (a * d - b * c < 0)
    assert orient(image, None) is image and not is_mirrored(None)


@pytest.mark.parametrize('width, aspect, expected', [
    (720, Fraction(64, 45), 1024), (720, Fraction(8, 9), 640), (720, None, 720), (720, Fraction(0), 720),
    (720, Fraction(1000), 720), (1, Fraction(1, 4), 1)])
def test_square_pixels(width, aspect, expected):
    assert square_width(width, aspect) == expected


@pytest.mark.parametrize('transfer, signal', [(PQ, pq), (HLG, hlg)])
def test_what_is_dark_keeps_its_light(transfer, signal):
    for nits in (1, 5, 20, 50, 80):
        shown = to_sdr(gray(signal(nits)), transfer)
        assert shown == pytest.approx(255 * (nits / 203)**(1 / 2.4), abs=1.5)


@pytest.mark.parametrize('transfer, signal', [(PQ, pq), (HLG, hlg)])
def test_what_is_bright_is_compressed_and_stays_in_order(transfer, signal):
    shown = [int(to_sdr(gray(signal(nits)), transfer).mean()) for nits in (90, 150, 203, 400, 990)]
    assert shown == sorted(set(shown)) and shown[0] < 190 and 215 < shown[2] < 240 and shown[-1] >= 253
    assert to_sdr(gray(1.), transfer).min() >= 254 and to_sdr(gray(0.), transfer).max() == 0


def test_colors_keep_their_hue():
    """Skin, in BT.2020 light: its strongest component is compressed, the others with it."""
    light = np.array([250., 210., 190.])
    signal = np.array([[[round(65535 * pq(value)) for value in light]]], np.uint16)
    red, green, blue = (to_sdr(signal, PQ)[0, 0].astype(float) / 255)**2.4
    matrix = np.array([[1.6605, -.5876, -.0728], [-.1246, 1.1329, -.0083], [-.0182, -.1006, 1.1187]])
    expected = matrix @ light
    assert [red / green, blue / green] == pytest.approx([expected[0] / expected[1], expected[2] / expected[1]], rel=.05)


@pytest.mark.parametrize('transfer, name, signal', [(PQ, 'PQ', pq), (HLG, 'HLG', hlg)])
def test_an_hdr_video_looks_like_its_sdr_twin(tmp_path, transfer, name, signal):
    """The same gray steps of light, stored as HDR and as SDR."""
    nits = np.linspace(.5, 90, 16)
    codes = np.round(65535 * signal(nits)).astype(np.uint16)  # [16]
    picture = np.broadcast_to(codes.repeat(8)[:, None], (96, 128, 3))
    path = encode_video(tmp_path / 'a.mp4', [picture] * 5, pix_fmt='yuv444p10le', transfer=transfer, codec='hevc')
    reader = PyAVReader(path)
    shown = reader.get_batch([3]).asnumpy()[0][48, 4::8].mean(axis=-1)
    assert reader.notes == [f'HDR ({name}): tone mapped to SDR']
    np.testing.assert_allclose(shown, 255 * (nits / 203)**(1 / 2.4), atol=8)
