"""Convert decoded pictures to what a player shows: oriented, with square pixels, tone mapped to SDR.

Works on plain arrays and numbers, independent of any decoder.
"""
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

HDR = {16: 'PQ', 18: 'HLG'}
"""Transfer characteristics (ITU-T H.273) that are tone mapped, by their number in FFmpeg."""

_MAX_ASPECT = 16  # pixel aspect ratios beyond this are treated as damage
_WHITE, _PEAK = 203., 1000.  # nits, ITU-R BT.2408: reference white, and peak of the display that videos are graded for
_TO_709 = np.array([[1.6605, -.5876, -.0728], [-.1246, 1.1329, -.0083], [-.0182, -.1006, 1.1187]], np.float32)
_LUMA_2020 = np.array([.2627, .6780, .0593], np.float32)
_STEPS = 4096  # size of the lookup tables, which are indexed by the square root of light


def orient(image: np.ndarray, matrix: Sequence[int] | None) -> np.ndarray:
    """Rotate and mirror a picture by a display matrix; angles are rounded to the nearest quarter turn.

    Args:
        image (np.ndarray): [H, W, ...].
        matrix (Sequence[int], optional): 9 numbers, as in mp4's ``tkhd``: a point (x, y) is shown at
            (x * m[0] + y * m[3], x * m[1] + y * m[4]). None: unchanged.

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
    """Return True if a display matrix mirrors the picture instead of only rotating it."""
    return matrix is not None and matrix[0] * matrix[4] - matrix[1] * matrix[3] < 0


def square_width(width: int, aspect: Fraction | None) -> int:
    """Return the width of a picture after making its pixels square, as players do.

    Args:
        width (int): Stored width.
        aspect (Fraction, optional): Pixel width divided by pixel height. None, 0 and absurd values count as square.
    """
    if not aspect or not Fraction(1, _MAX_ASPECT) <= aspect <= _MAX_ASPECT:
        return width
    return max(1, round(width * aspect))


def to_sdr(image: np.ndarray, transfer: int) -> np.ndarray:
    """Tone map an HDR picture to BT.709.

    The light of each pixel is compressed with the curve of ITU-R BT.2390, from 1000 nits to the reference white of 203
    nits, based on its strongest component so that hues are preserved; values below about 90 nits are unchanged. Colors
    outside of BT.709 are then clipped.

    Args:
        image (np.ndarray): uint16 [H, W, 3] RGB, the BT.2020 signal.
        transfer (int): A key of ``HDR``.

    Returns:
        np.ndarray: uint8 [H, W, 3] RGB.
    """
    light = _light_table(transfer)[image >> 4]  # [H, W, 3], 1 is the peak
    if HDR[transfer] == 'HLG':
        light *= np.power(light @ _LUMA_2020, .2)[..., None]  # system gamma of a 1000-nit display
    strongest = np.sqrt(np.clip(light.max(axis=-1), 0, 10))
    light *= _gain_table()[(strongest * (_STEPS - 1)).astype(np.uint16)][..., None]
    light = np.clip(light @ _TO_709.T, 0, 1)
    return _display_table()[(np.sqrt(light) * (_STEPS - 1) + .5).astype(np.uint16)]


@lru_cache
def _light_table(transfer: int) -> np.ndarray:
    """Return the light of each 12-bit signal value, float32 [4096]; 1 is the peak."""
    signal = np.arange(4096) / 4095
    if HDR[transfer] == 'PQ':
        return (_pq_to_nits(signal) / _PEAK).astype(np.float32)
    a, b, c = .17883277, .28466892, .55991073
    return np.where(signal <= .5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@lru_cache
def _gain_table() -> np.ndarray:
    """Return the gain by the square root of the strongest component, float32 [n]; after scaling, 1 is white."""
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
    """Return the signal of a BT.1886 display by the square root of the light, uint8 [n]."""
    return np.round(255 * (np.arange(_STEPS) / (_STEPS - 1))**(2 / 2.4)).astype(np.uint8)


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # SMPTE ST 2084


def _pq_to_nits(signal: np.ndarray) -> np.ndarray:
    root = signal**(1 / _M2)
    return 10000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root))**(1 / _M1)


def _nits_to_pq(nits: np.ndarray | float) -> np.ndarray | float:
    power = (np.asarray(nits) / 10000)**_M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power))**_M2
