"""Stills of videos."""
import io

from PIL import Image

from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.transforms import ReadClip

WIDTH = 320  # maximum width and height in pixels


def middle_frame(path: str, start: float | None, end: float | None) -> bytes:
    """Encode the frame in the middle of a moment, in seconds, or of the whole video, as a JPEG file.

    Decoding may crash or hang, so this is best called in another process.

    Raises:
        VideoDecodeError: The video can't be read.
    """
    found, = ReadClip(num_frames=1, sampling='time').read(path, [(start, end)])
    if isinstance(found, VideoDecodeError):
        raise found
    image = Image.fromarray(found['imgs'][0])
    image.thumbnail((WIDTH, WIDTH))
    out = io.BytesIO()
    image.save(out, 'JPEG', quality=85)
    return out.getvalue()
