"""HTML of the search page. All external text is escaped here."""
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from vop_mm.visualization.html import jpeg_image, moment, text, valid

from ..unknown_words import describe
from ..video_searcher import RankedText
from .collection import Found, Status

_PLAYABLE = frozenset(('.m4v', '.mkv', '.mov', '.mp4', '.ogv', '.webm'))  # containers that browsers may be able to play
_MAX_FAILED = 100
_MAX_QUERY = 120  # characters
_PATH = re.compile(  # absolute paths: anything within quotes, otherwise without spaces
    r'([\'"])(?:file:)?/.*?\1|(?<![\w.])(?:file:)?/+[^\s/\'"()<>\[\]:;,]+(?:/[^\s\'"()<>\[\]:;,]*)?')


def without_paths(line: str) -> str:
    """Remove absolute paths of this machine from a message; visitors have no use for them."""
    return _PATH.sub(r'\1...\1', line)


def message(line: str) -> str:
    """Format an error message."""
    return f'<p class="vop-message" role="alert">{text(line)}</p>'


def hint(line: str) -> str:
    """Format a hint."""
    return f'<p class="vop-hint">{text(line)}</p>'


def in_order(answer: str, order: float) -> str:
    """Wrap an answer with the sequence number of its question."""
    return f'<div data-order="{order:.0f}">{answer}</div>'


def heading(query: str, prompts: str) -> str:
    """Format the query and the name of its prompt set."""
    query = ' '.join(query.split())
    shown = query if len(query) <= _MAX_QUERY else f'{query[:_MAX_QUERY]} ...'
    return f'<p class="vop-asked">“{text(shown)}”, {text(prompts)}</p>'


def unknown(words: Sequence[str]) -> str:
    """Format a note that the model doesn't know these words; empty if there are none."""
    return f'<p class="vop-unknown" role="status">{text(describe(words))}</p>' if words else ''


def cards(found: Sequence[Found], collection: int, captions: Mapping[str, Sequence[str]]) -> str:
    """Format moments as cards with players; known captions of videos are given by real path."""
    if not found:
        return message('nothing found: the index has no clips')
    items = [_card(rank, item, collection, captions) for rank, item in enumerate(found, 1)]
    return f'<ol class="vop-cards">{"".join(items)}</ol>'


def _card(rank: int, found: Found, collection: int, captions: Mapping[str, Sequence[str]]) -> str:
    name, suffix = text(found.name), PurePath(found.name).suffix.lower()
    address = f'{collection:d}/{found.number:d}?v={quote(valid(found.version), safe="")}'
    if suffix in _PLAYABLE:
        screen = (f'<video controls playsinline preload="metadata" poster="pictures/{address}" '
                  f'src="clips/{address}#t={found.start:.2f},{found.end:.2f}"></video>')
        kind, why = '', 'This browser cannot play it: download it.'
    else:
        screen, kind, why = '', ' vop-unplayed', f'Browsers cannot play {text(suffix)}: download it.'
    known = captions.get(os.path.realpath(found.path)) if captions else None
    says = f'<p class="vop-caption">{text(known[0])}</p>' if known else ''
    return (f'<li class="vop-card{kind}"><div class="vop-screen">{screen}'
            f'<img class="vop-still" alt="" loading="lazy" src="pictures/{address}"></div>'
            f'<div class="vop-line"><b class="vop-rank">{rank}</b>'
            f'<span class="vop-score" title="cosine of query and clip">{found.score:.3f}</span>'
            f'<span class="vop-moment">{moment(found.start, found.end)}</span>'
            f'<a class="vop-download" href="clips/{address}" download="{text(PurePath(found.name).name)}" '
            f'title="download the video">download</a></div>{says}'
            f'<p class="vop-name" title="{name}">{name}</p><p class="vop-why">{why}</p></li>')


def drop_zone(collection: int, max_upload: int) -> str:
    """Format the drop zone for a clip, and the area for its results; ``page.js`` sends the file."""
    return (f'<label id="vop-drop" data-collection="{collection:d}" data-most="{max_upload:d}">'
            '<input type="file" accept="video/*"><b>Drop a clip here, or choose one</b>'
            f'<span>up to {max_upload / 2**20:,.4g} MB; it is compared with the index, and removed</span></label>'
            '<div id="vop-neighbors" aria-live="polite"></div>')


def uploaded(name: str, picture: bytes) -> str:
    """Format the uploaded clip: its name and a JPEG still."""
    return f'<figure class="vop-uploaded">{jpeg_image(picture)}<figcaption>{text(name)}</figcaption></figure>'


def ranked_texts(texts: Sequence[RankedText], total: int, source: str) -> str:
    """Format the best of a number of texts with scores, and where they come from."""
    items = ''.join(f'<li><span class="vop-score">{item.score:.3f}</span> {text(item.text)}</li>' for item in texts)
    return (f'<h3>Nearest texts</h3><ol class="vop-texts">{items}</ol>'
            f'<p class="vop-hint">of {_count(total, "text")}: {text(source)}</p>')


def summary(status: Status) -> str:
    """Format a one-line summary of an index."""
    failed = f', {_count(len(status.failed), "file")} not read' if status.failed else ''
    return (f'<p class="vop-summary">{_count(status.clips, "clip")} of {_count(status.files, "video")}{failed}</p>')


def status_table(name: str, index: str, status: Status) -> str:
    """Format all details of an index, with the names of its prompt set and of its folder."""
    settings = status.settings
    windows = (f'{_short(settings["window"])} s long, one every {_short(settings.get("stride"))} s'
               if settings.get('window') else 'none: whole videos')
    rows = [('Prompt set', name), ('Index', index), ('Videos', PurePath(status.videos).name),
            ('Clips', f'{status.clips:,}' + (f', and {status.waiting:,} changes that a search does not see yet: '
                                             'indexing goes on, or was interrupted' if status.waiting else '')),
            ('Files', f'{status.files:,} read, {len(status.failed):,} cannot be read'),
            ('Windows', windows), ('CLIP', settings.get('CLIP')), ('Prompts', settings.get('prompts')),
            ('Embedding', f'{settings.get("dim")} values'), ('Back end', status.backend),
            ('Last change', f'{status.changed:%Y-%m-%d %H:%M:%S}')]
    table = ''.join(f'<tr><th scope="row">{title}</th><td>{text(value)}</td></tr>'
                    for title, value in rows)
    return f'<table class="vop-status">{table}</table>{_failed(status.failed)}'


def _failed(failed: Sequence[tuple[str, str]]) -> str:
    if not failed:
        return ''
    rows = ''.join(f'<tr><td>{text(name)}</td><td>{text(without_paths(str(reason)))}</td></tr>'
                   for name, reason in failed[:_MAX_FAILED])
    more = f'<p class="vop-hint">and {len(failed) - _MAX_FAILED:,} more</p>' if len(failed) > _MAX_FAILED else ''
    return (f'<h3>Files that cannot be read</h3><table class="vop-status vop-failed">{rows}</table>{more}'
            '<p class="vop-hint">They are tried again when the folder is indexed again.</p>')


def _short(value: Any) -> str:
    return f'{value:g}' if isinstance(value, (int, float)) else str(value)


def _count(number: int, what: str) -> str:
    return f'{number:,} {what}{"" if number == 1 else "s"}'
