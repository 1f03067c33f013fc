"""Notes about a video for people who view its frames."""
import re

from .display import HDR


def tracks_note(count: int, number: int, height: int, width: int) -> str:
    """Say which of several video tracks is read, counted from 1."""
    ordinal = f'{number}{dict(enumerate(("st", "nd", "rd"), 1)).get(number, "th")}'
    return f'{count} video tracks: the {ordinal} is read ({width}x{height})'


def hdr_note(transfer: int) -> str:
    """Say that colors are changed; ``transfer`` is a key of ``HDR``."""
    return f'HDR ({HDR[transfer]}): tone mapped to SDR'


def cut_off_note(said: str, end: float) -> str | None:
    """Say that the end of a file was lost; return None if it was not.

    Args:
        said (str): End of the track according to Matroska metadata, such as ``'00:01:30.040000000'``, or ''.
        end (float): Actual end in seconds.
    """
    found = re.fullmatch(r'(\d+):(\d+):(\d+\.?\d*)', said)
    seconds = 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0
    if seconds <= 1.05 * end + 1:
        return None
    return f'cut off: the file says {seconds:.2f} s, its video ends at {end:.2f} s'
