"""From decoded pictures to those that a player shows: turned and mirrored, with square pixels, without HDR.

Plain arrays and numbers: nothing here knows a decoder.
"""
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

HDR = {16: 'PQ', 18: 'HLG'}
"""Transfer characteristics (ITU-T H.273) that are tone mapped, by their numbers in FFmpeg."""

_MOST = 16  # ratios of a pixel's sides beyond this are damage
_WHITE, _PEAK = 203., 1000.  # nits, ITU-R BT.2408: reference white, and the display that videos are graded for
_TO_709 = np.array([[1.6605, -.5876, -.0728], [-.1246, 1.1329, -.0083], [-.0182, -.1006, 1.1187]], np.float32)
_LUMA_2020 = np.array([.2627, .6780, .0593], np.float32)
_STEPS = 4096  # of tables over light, which is looked up by its square root


def orient(image: np.ndarray, matrix: Sequence[int] | None) -> np.ndarray:
    """Turn and mirror a picture as a display matrix says, angles to the nearest quarter.

    Args:
        image (np.ndarray): [H, W, ...].
        matrix (Sequence[int], optional): 9 numbers, as in mp4's ``tkhd``: a point (x, y) is shown at
            (x * m[0] + y * m[3], x * m[1] + y * m[4]). None: as it is.

    Returns:
        np.ndarray: A view, [H, W, ...] or [W, H, ...].
    """
    if matrix is None:
        return image
    xx, xy, yx, yy = matrix[0], matrix[1], matrix[3], matrix[4]
    right, down = xx, yy
    if abs(xy) + abs(yx) > abs(xx) + abs(yy):
        image = image.swapaxes(0, 1)
        right, down = yx, xy
    return image[::-1 if down < 0 else 1, ::-1 if right < 0 else 1]


def is_mirrored(matrix: Sequence[int] | None) -> bool:
    """Whether a display matrix does more than to turn the picture."""
    return matrix is not None and matrix[0] * matrix[4] - matrix[1] * matrix[3] < 0


def square_width(width: int, aspect: Fraction | None) -> int:
    """Width of a picture when its pixels are made square, as players do.

    Args:
        width (int): As it is stored.
        aspect (Fraction, optional): Width of a pixel by its height. None, 0 and absurd ones: square.
    """
    if not aspect or not Fraction(1, _MOST) <= aspect <= _MOST:
        return width
    return max(1, round(width * aspect))


def to_sdr(image: np.ndarray, transfer: int) -> np.ndarray:
    """Tone map an HDR picture to BT.709.

    The light of each pixel is compressed by the curve of ITU-R BT.2390, from 1000 nits to the reference white of 203,
    by its strongest component, so that hues stay; what is darker than about 90 nits keeps its light. Then colors
    outside of BT.709 are clipped.

    Args:
        image (np.ndarray): uint16 [H, W, 3] RGB, the BT.2020 signal.
        transfer (int): A key of ``HDR``.

    Returns:
        np.ndarray: uint8 [H, W, 3] RGB.
    """
    light = _light_table(transfer)[image >> 4]  # [H, W, 3], 1 is the peak
    if HDR[transfer] == 'HLG':
        light *= np.power(light @ _LUMA_2020, .2)[..., None]  # the system gamma of a display of 1000 nits
    strongest = np.sqrt(np.clip(light.max(axis=-1), 0, 10))
    light *= _gain_table()[(strongest * (_STEPS - 1)).astype(np.uint16)][..., None]
    light = np.clip(light @ _TO_709.T, 0, 1)
    return _display_table()[(np.sqrt(light) * (_STEPS - 1) + .5).astype(np.uint16)]


@lru_cache
def _light_table(transfer: int) -> np.ndarray:
    """Light of each signal of 12 bits, float32 [4096]; 1 is the peak."""
    signal = np.arange(4096) / 4095
    if HDR[transfer] == 'PQ':
        return (_pq_to_nits(signal) / _PEAK).astype(np.float32)
    a, b, c = .17883277, .28466892, .55991073
    return np.where(signal <= .5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@lru_cache
def _gain_table() -> np.ndarray:
    """What light is multiplied by, by the root of the strongest component; then 1 is white, float32 [n]."""
    nits = np.maximum((np.arange(np.ceil(np.sqrt(10) * _STEPS)) / (_STEPS - 1))**2, 1e-9) * _PEAK
    most = _nits_to_pq(_WHITE) / _nits_to_pq(_PEAK)
    knee = 1.5 * most - .5
    x = np.minimum(_nits_to_pq(nits) / _nits_to_pq(_PEAK), 1)
    t = np.maximum(x - knee, 0) / (1 - knee)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    shown = _pq_to_nits(np.where(x < knee, x, curve) * _nits_to_pq(_PEAK))
    return (shown / nits * _PEAK / _WHITE).astype(np.float32)


@lru_cache
def _display_table() -> np.ndarray:
    """Signal of a BT.1886 display, by the root of the light, uint8 [n]."""
    return np.round(255 * (np.arange(_STEPS) / (_STEPS - 1))**(2 / 2.4)).astype(np.uint8)


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # SMPTE ST 2084


def _pq_to_nits(signal: np.ndarray) -> np.ndarray:
    root = signal**(1 / _M2)
    return 10000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root))**(1 / _M1)


def _nits_to_pq(nits: np.ndarray | float) -> np.ndarray | float:
    power = (np.asarray(nits) / 10000)**_M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power))**_M2
