"""Pictures as HDR files store them, by the formulas of the standards."""
import numpy as np

PQ, HLG = 16, 18  # FFmpeg's numbers of transfer characteristics
_TO_2020 = np.array([[.6274, .3293, .0433], [.0691, .9195, .0114], [.0164, .0880, .8956]])  # ITU-R BT.2087


def pq(nits: np.ndarray | float) -> np.ndarray | float:
    """The signal of a light, SMPTE ST 2084."""
    power = (nits / 10000)**(2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power))**(2523 / 32)


def hlg(nits: np.ndarray | float, luminance: np.ndarray | float | None = None) -> np.ndarray | float:
    """The signal of a light on a display of 1000 nits, ITU-R BT.2100; without a luminance, of a gray one."""
    luminance = np.maximum(nits if luminance is None else luminance, 1e-6)
    scene = nits / 1000 * (luminance / 1000)**(1 / 1.2 - 1)
    return np.where(scene <= 1 / 12, (3 * scene)**.5,
                    .17883277 * np.log(np.maximum(12 * scene, 1) - .28466892) + .55991073)


def to_hdr(image: np.ndarray, transfer: int) -> np.ndarray:
    """An SDR picture uint8 [H, W, 3] as an HDR signal uint16 [H, W, 3]; its white has 203 nits, ITU-R BT.2408."""
    nits = 203 * (image / 255)**2.4 @ _TO_2020.T
    signal = pq(nits) if transfer == PQ else hlg(nits, nits @ [[.2627], [.6780], [.0593]])
    return np.round(65535 * np.clip(signal, 0, 1)).astype(np.uint16)
