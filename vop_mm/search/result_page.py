"""Search results as an HTML page."""
import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vop_mm.datasets.decoding import DecodeProcess
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.transforms import ReadClip
from vop_mm.utils.files import atomic_write

from .hit import Hit

_WIDTH = 320  # width of a picture in pixels
# In addition to escaping: a written page runs and fetches nothing, whatever is in names and captions.
POLICY = ('<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
          'style-src \'unsafe-inline\'">')
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy}
<title>{query}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
ol {{ display: flex; flex-wrap: wrap; gap: 1.5em; padding: 0; list-style-position: inside; }}
li {{ width: {width}px; overflow-wrap: anywhere; }}
img {{ display: block; width: 100%; }}
</style>
</head>
<body>
<h1>{query}</h1>
{note}
<ol>
{items}
</ol>
</body>
</html>
"""


def moment(start: float, end: float) -> str:
    """Format a span of seconds as ``1:05-1:35``."""
    return f'{_clock(start)}-{_clock(end)}'


def write_search_page(path: str | Path, query: str, hits: Sequence[Hit], note: str = '') -> None:
    """Write a self-contained page with a picture of each moment and links to the videos on this machine.

    Args:
        path (str | Path): HTML file to write.
        query (str): The query.
        hits (Sequence[Hit]): The search results.
        note (str): Remark about the query. Defaults to ``''``.
    """
    pictures = DecodeProcess(picture_of)
    items = []
    for hit in hits:
        try:
            data = base64.b64encode(pictures.call(hit.path, hit.path, hit.start, hit.end)).decode()
            picture = f'<img alt="" src="data:image/jpeg;base64,{data}">'
        except VideoDecodeError as e:
            picture = f'<p>{html.escape(e.reason)}</p>'
        link = html.escape(f'{Path(hit.path).absolute().as_uri()}#t={hit.start:.2f},{hit.end:.2f}')
        name = html.escape(hit.path)
        items.append(f'<li>{hit.score:.3f}, {moment(hit.start, hit.end)}\n<a href="{link}">{picture}{name}</a></li>')
    pictures.close()
    page = _PAGE.format(query=html.escape(query), items='\n'.join(items), width=_WIDTH, policy=POLICY,
                        note=f'<p>{html.escape(note)}</p>' if note else '')
    with atomic_write(path) as file:
        file.write(page.encode(errors='replace'))  # names and queries may not be valid UTF-8


def picture_of(path: str, start: float | None, end: float | None) -> bytes:
    """Encode the frame in the middle of a moment as JPEG.

    Decoding may crash or hang, so this is best called in another process.

    Args:
        path (str): The video.
        start (float, optional): Start in seconds. None: the start of the video.
        end (float, optional): End in seconds. None: the end of the video.

    Returns:
        bytes: Content of the JPEG file.

    Raises:
        VideoDecodeError: The video can't be read.
    """
    found, = ReadClip(num_frames=1, sampling='time').read(path, [(start, end)])
    if isinstance(found, VideoDecodeError):
        raise found
    image = Image.fromarray(found['imgs'][0])
    image.thumbnail((_WIDTH, _WIDTH))
    out = io.BytesIO()
    image.save(out, 'JPEG', quality=85)
    return out.getvalue()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
