"""What a search found, as a page of HTML."""
import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vop_mm.datasets.decoding import DecodeProcess
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.transforms import ReadClip
from vop_mm.index import Hit
from vop_mm.utils.files import atomic_write

_WIDTH = 320  # of a picture, in pixels
# Beside escaping: whatever a name or a caption holds, a page that is written to a file runs and fetches nothing.
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
    """A span of seconds as people write it: ``1:05-1:35``."""
    return f'{_clock(start)}-{_clock(end)}'


def write_search_page(path: str | Path, query: str, hits: Sequence[Hit], note: str = '') -> None:
    """Write a page with a picture of each moment, which needs no other file; its links open the videos there.

    Args:
        path (str | Path): The page.
        query (str): What was asked for.
        hits (Sequence[Hit]): What was found.
        note (str): What there is to say of the query. Defaults to ``''``.
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
        file.write(page.encode(errors='replace'))  # a name or a query needn't be UTF-8


def picture_of(path: str, start: float | None, end: float | None) -> bytes:
    """JPEG of the frame in the middle of a moment; best called where it may crash and hang.

    Args:
        path (str): The video.
        start (float, optional): Seconds. None: the video's start.
        end (float, optional): Seconds. None: the video's end.

    Returns:
        bytes: Of the file.

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
