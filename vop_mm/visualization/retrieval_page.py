"""Retrieval results as a self-contained HTML page."""
import base64
from html import escape
from pathlib import Path

import numpy as np

from vop_mm.search.result_page import POLICY
from vop_mm.utils.files import atomic_write

from .film_strips import FilmStrips
from .rankings import Rankings

_STYLE = '''
body { font: 15px sans-serif; margin: 2em; color: #222; }
h2 { font-size: 1.1em; margin: 1.6em 0 0.4em; }
.methods { display: flex; gap: 14px; overflow-x: auto; }
.methods > div { flex: 0 0 auto; }
figure { margin: 0 0 8px; }
figure img { display: block; border: 4px solid #888; height: 90px; }
figcaption { font-size: 0.8em; color: #666; }
.right img { border-color: #2ca02c; }
.wrong img { border-color: #d62728; }
'''


def write_page(methods: dict[str, Rankings], queries: list[int], strips: FilmStrips, path: str | Path, title: str,
               top_k: int = 1) -> None:
    """Write the page, with the content of the figure plus scores and video names.

    Args:
        methods (dict[str, Rankings]): Results by name of the method, all of the same split.
        queries (list[int]): Rows of the similarity matrices.
        strips (FilmStrips): Film strips of the split's videos.
        path (str | Path): HTML file to write.
        title (str): Title of the page.
        top_k (int): Number of videos to show per method. Defaults to 1.
    """
    first = next(iter(methods.values()))
    parts = [f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{POLICY}',
             f'<title>{escape(title)}</title><style>{_STYLE}</style></head><body>', f'<h1>{escape(title)}</h1>',
             '<p>Green: right. Red: wrong. Gray: the true video where it is not among those shown.</p>']
    for query in queries:
        truth = int(first.text_to_video[query])
        parts += [f'<h2>“{escape(first.captions[query])}”</h2>', '<div class="methods">']
        for name, method in methods.items():
            top = method.top(query, top_k)
            parts.append(f'<div><strong>{escape(name)}</strong>')
            for place, video in enumerate(top, 1):
                parts.append(_figure(method, query, video, strips, 'right' if video == truth else 'wrong', place))
            if truth not in top:
                parts.append(_figure(method, query, truth, strips, 'true', method.rank(query)))
            parts.append('</div>')
        parts.append('</div>')
    parts.append('</body></html>\n')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write('\n'.join(parts).encode(errors='replace'))  # captions and names may not be valid UTF-8


def _figure(method: Rankings, query: int, video: int, strips: FilmStrips, kind: str, place: int) -> str:
    name = method.video_ids[video]
    says = f'{place}. {name}, {method.similarity[query, video]:.3f}'
    picture = base64.b64encode(_jpeg(strips[name])).decode()
    return (f'<figure class="{kind}"><img alt="{escape(name)}" src="data:image/jpeg;base64,{picture}">'
            f'<figcaption>{escape(says)}</figcaption></figure>')


def _jpeg(strip: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode('.jpg', cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))[1].tobytes()
