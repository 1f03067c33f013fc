"""Search results as an HTML page."""
from collections.abc import Sequence
from pathlib import Path

from vop_mm.datasets.decoding import DecodeProcess
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.visualization.html import jpeg_image, moment, text, write_html

from .hit import Hit
from .stills import WIDTH, middle_frame

_STYLE = f"""body {{ font-family: sans-serif; margin: 2em; }}
ol {{ display: flex; flex-wrap: wrap; gap: 1.5em; padding: 0; list-style-position: inside; }}
li {{ width: {WIDTH}px; overflow-wrap: anywhere; }}
img {{ display: block; width: 100%; }}"""


def write_result_page(path: str | Path, query: str, hits: Sequence[Hit], note: str = '') -> None:
    """Write a self-contained page with a picture of each moment and links to the videos on this machine."""
    process = DecodeProcess(middle_frame)
    items = []
    for hit in hits:
        try:
            picture = jpeg_image(process.call(hit.path, hit.path, hit.start, hit.end))
        except VideoDecodeError as e:
            picture = f'<p>{text(e.reason)}</p>'
        link = text(f'{Path(hit.path).absolute().as_uri()}#t={hit.start:.2f},{hit.end:.2f}')
        items.append(f'<li>{hit.score:.3f}, {moment(hit.start, hit.end)}\n'
                     f'<a href="{link}">{picture}{text(hit.path)}</a></li>')
    process.close()
    items = '\n'.join(items)
    write_html(path, query, _STYLE, f'{f"<p>{text(note)}</p>" if note else ""}\n<ol>\n{items}\n</ol>')
