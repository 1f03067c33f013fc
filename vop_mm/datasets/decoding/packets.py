"""The order in which a file stores its pictures, without decoding them."""
import numpy as np


def packet_times(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Times of the coded pictures of a video, in the order of the file, by OpenCV's FFmpeg.

    Args:
        path (str): A video; of a file that FFmpeg can't read, nothing is known.

    Returns:
        tuple[np.ndarray, np.ndarray]: When each is shown, in ticks, float64 [n]; which ones are key frames, bool [n].

    Raises:
        ImportError: OpenCV is older than 4.11.
    """
    import cv2

    if not hasattr(cv2, 'CAP_PROP_PTS'):
        raise ImportError(f'opencv-python 4.11 or newer is needed to look into {path}, this one is {cv2.__version__}')
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])  # packets, not frames
    packets = []
    while capture.grab():
        packets.append((capture.get(cv2.CAP_PROP_PTS), capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME)))
    capture.release()
    times, keys = np.asarray(packets, dtype=np.float64).reshape(-1, 2).T
    return times, keys > 0


def count_leading(times: np.ndarray, keys: np.ndarray) -> int:
    """Leading pictures: stored behind a key frame, shown before it (in an open group of pictures).

    Args:
        times (np.ndarray): When each picture is shown, in the order of the file, [n].
        keys (np.ndarray): Which ones are key frames, bool [n].

    Returns:
        int: How many there are.

    Examples:
        >>> count_leading(np.array([0, 2, 1, 5, 3, 4]), np.array([True, False, False, True, False, False]))
        2
    """
    last_key = np.maximum.accumulate(np.where(keys, np.arange(len(times)), 0))  # [n]
    return int((times < times[last_key]).sum())
