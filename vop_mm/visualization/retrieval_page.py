"""Retrieval results as a self-contained HTML page."""
from pathlib import Path

import numpy as np

from .film_strips import FilmStrips
from .html import jpeg_image, text, write_html
from .rankings import Rankings

_STYLE = """body { font: 15px sans-serif; margin: 2em; color: #222; }
h2 { font-size: 1.1em; margin: 1.6em 0 0.4em; }
.methods { display: flex; gap: 14px; overflow-x: auto; }
.methods > div { flex: 0 0 auto; }
figure { margin: 0 0 8px; }
figure img { display: block; border: 4px solid #888; height: 90px; }
figcaption { font-size: 0.8em; color: #666; }
.right img { border-color: #2ca02c; }
.wrong img { border-color: #d62728; }"""


def write_page(methods: dict[str, Rankings], queries: list[int], strips: FilmStrips, path: str | Path, title: str,
               top_k: int = 1) -> None:
    """Write an HTML file with the content of :func:`~.retrieval_figure.draw_retrieval`, scores and video names."""
    first = next(iter(methods.values()))
    parts = ['<p>Green: right. Red: wrong. Gray: the true video where it is not among those shown.</p>']
    for query in queries:
        truth = int(first.text_to_video[query])
        parts += [f'<h2>“{text(first.captions[query])}”</h2>', '<div class="methods">']
        for name, method in methods.items():
            top = method.top(query, top_k)
            parts.append(f'<div><strong>{text(name)}</strong>')
            for place, video in enumerate(top, 1):
                parts.append(_figure(method, query, video, strips, 'right' if video == truth else 'wrong', place))
            if truth not in top:
                parts.append(_figure(method, query, truth, strips, 'true', method.rank(query)))
            parts.append('</div>')
        parts.append('</div>')
    write_html(path, title, _STYLE, '\n'.join(parts))


def _figure(method: Rankings, query: int, video: int, strips: FilmStrips, kind: str, place: int) -> str:
    name = method.video_ids[video]
    says = f'{place}. {name}, {method.similarity[query, video]:.3f}'
    return (f'<figure class="{kind}">{jpeg_image(_jpeg(strips[name]), name)}'
            f'<figcaption>{text(says)}</figcaption></figure>')


def _jpeg(strip: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode('.jpg', cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))[1].tobytes()
