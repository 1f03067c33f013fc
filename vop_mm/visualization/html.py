"""HTML that all pages share: escaping, pictures, moments of videos, and self-contained files."""
import base64
from html import escape
from pathlib import Path

from vop_mm.utils.files import atomic_write

# In addition to escaping: a written page runs and fetches nothing, whatever is in names and captions.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def valid(text: str) -> str:
    """Replace what is not valid text; names of files and arguments may not be UTF-8."""
    return text.encode(errors='replace').decode()


def text(value: object) -> str:
    """Escape external text."""
    return escape(valid(str(value)))


def jpeg_image(content: bytes, alt: str = '') -> str:
    """Embed a JPEG file in a page."""
    return f'<img alt="{text(alt)}" src="data:image/jpeg;base64,{base64.b64encode(content).decode()}">'


def moment(start: float, end: float) -> str:
    """Format a span of seconds as ``1:05-1:35``."""
    return f'{_clock(start)}-{_clock(end)}'


def write_html(path: str | Path, title: str, style: str, body: str) -> None:
    """Write a self-contained page: a title, which is escaped here, as its heading, and the HTML that follows."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(_PAGE.format(title=text(title), style=style, body=body).encode())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
