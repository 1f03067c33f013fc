"""What somebody who looks at the frames of a video might want to know, in words."""
import re

from .display import HDR


def tracks_note(count: int, number: int, height: int, width: int) -> str:
    """Which of several video tracks is read, counted from 1."""
    ordinal = f'{number}{dict(enumerate(("st", "nd", "rd"), 1)).get(number, "th")}'
    return f'{count} video tracks: the {ordinal} is read ({width}x{height})'


def hdr_note(transfer: int) -> str:
    """That colors are changed; a key of ``HDR``."""
    return f'HDR ({HDR[transfer]}): tone mapped to SDR'


def cut_off_note(said: str, end: float) -> str | None:
    """That the end of a file was lost; None: it was not.

    Args:
        said (str): Where the track ends, as Matroska keeps it: ``'00:01:30.040000000'``, or ''.
        end (float): Where it ends in fact, in seconds.
    """
    found = re.fullmatch(r'(\d+):(\d+):(\d+\.?\d*)', said)
    seconds = 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0
    if seconds <= 1.05 * end + 1:
        return None
    return f'cut off: the file says {seconds:.2f} s, its video ends at {end:.2f} s'
