"""The search page: a search box, a drop zone for clips, and the state of the index."""
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vop_mm.datasets.errors import VideoDecodeError

from . import cards
from .collection import Collection
from .media import Pictures
from .texts import Texts

_MAX_RESULTS = 48
_MAX_TEXTS = 5
_MAX_TYPED = 100_000  # characters in the box: more than a query may have, so that the user gets an error message
_MAX_WAIT = 30  # seconds that a query waits for others
_STATUS_INTERVAL = 5  # seconds between checks of the index
_FOLDER = Path(__file__).parent
_HEAD = ('<div id="vop-head"><h1>Text-video search</h1>'
         '<p>Type a sentence, get the moment. Give a clip, get its neighbors.</p></div>')
_HINT = cards.hint('Type a sentence.')


class SearchPage:
    """The page, with one collection per prompt set, and its answers as HTML."""

    def __init__(self, collections: Sequence[Collection], texts: Texts, pictures: Pictures, max_upload: int) -> None:
        self.collections = {collection.name: collection for collection in collections}
        self.numbers = {collection.name: number for number, collection in enumerate(collections)}
        self.texts, self.pictures, self.max_upload = texts, pictures, max_upload
        self._searching = threading.Lock()  # the model answers one query at a time
        self._takes: dict[int, Callable[[Any], Any]] = {}  # validators by input component

    # -- answers ------------------------------------------------------------------------------------------------------
    def search(self, query: str | None, prompts: str, count: float, every: bool, order: float) -> str:
        """Return search results, or a message. ``order`` increases with every question."""
        return cards.in_order(self._found(query, prompts, count, every), order)

    def _found(self, query: str | None, prompts: str, count: float, every: bool) -> str:
        if not self._searching.acquire(timeout=_MAX_WAIT):
            return cards.message('too many searches at the same time: try again')
        try:
            found = self.collections[prompts].search(query or '', _count(count), merge=not every)
            unknown = cards.unknown(self.collections[prompts].unknown_words(query))
        except (ValueError, OSError) as e:
            return cards.message(self._describe(e))
        finally:
            self._searching.release()
        return (cards.heading(query, prompts) + unknown
                + cards.cards(found, self.numbers[prompts], self.texts.captions))

    def search_example(self, example: Sequence[str], *options) -> tuple[str, str]:
        """Return a clicked example for the text box, and its search results."""
        return example[0], self.search(example[0], *options)

    def search_again(self, query: str | None, *options) -> str:
        """Repeat a search after an option has changed."""
        return self.search(query, *options) if (query or '').strip() else cards.in_order(_HINT, options[-1])

    def nearest(self, prompts: str, path: str, name: str) -> str:
        """Return the clips and texts nearest to an uploaded clip, with its original name, or a message."""
        collection = self.collections[prompts]
        try:
            vector = collection.encode_video(path)
            picture = self.pictures.of(path)
            found = collection.nearest(vector)
            texts = collection.rank_texts(vector, self.texts.compared, _MAX_TEXTS)
        except VideoDecodeError as e:
            return cards.message(f"{name} can't be read as a video: {_reason(e, path)}")
        except (ValueError, OSError) as e:
            return cards.message(self._describe(e))
        return (cards.uploaded(name, picture)
                + cards.ranked_texts(texts, len(self.texts.compared), self.texts.source)
                + '<h3>Nearest clips</h3>' + cards.cards(found, self.numbers[prompts], self.texts.captions))

    def drop_zone(self, prompts: str) -> str:
        """Return HTML of the drop zone; replaced when other prompts are selected, to remove old results."""
        return cards.drop_zone(self.numbers[prompts], self.max_upload)

    def status(self, prompts: str) -> tuple[str, str]:
        """Return HTML of a one-line summary of the index, and of all its details."""
        collection = self.collections[prompts]
        try:
            status = collection.status()
        except (ValueError, OSError) as e:
            return cards.message(self._describe(e)), cards.message(self._describe(e))
        return cards.summary(status), cards.status_table(prompts, collection.index.name, status)

    # -- the page -----------------------------------------------------------------------------------------------------
    def build(self) -> gr.Blocks:
        """Build the page, to be mounted with :meth:`options`."""
        names = list(self.collections)
        with gr.Blocks(title='Text-video search', analytics_enabled=False) as page:
            with gr.Row():
                with gr.Column(scale=3, min_width=300):
                    gr.HTML(_HEAD)
                with gr.Column(scale=1, min_width=200):
                    line = gr.HTML(elem_id='vop-summary')
            prompts = gr.Radio(names, value=names[0], label='Prompt set', elem_id='vop-prompts',
                               info='Each searches the index that was made with it.')
            with gr.Tab('Search'):
                with gr.Row(equal_height=True):
                    query = gr.Textbox(show_label=False, placeholder='a red square moves left', elem_id='vop-query',
                                       scale=8, container=False, max_length=_MAX_TYPED)
                    button = gr.Button('Search', variant='primary', elem_id='vop-search', scale=1, min_width=100)
                examples = gr.Dataset(components=[query], samples=[[text] for text in self.texts.examples],
                                      label='Examples', elem_id='vop-examples')
                with gr.Row():
                    count = gr.Slider(1, _MAX_RESULTS, 8, step=1, label='Results', elem_id='vop-count')
                    every = gr.Checkbox(False, label='All moments of a video', elem_id='vop-every',
                                        info='Not only the best one of each.')
                    order = gr.Number(0, visible=False)
                results = gr.HTML(cards.in_order(_HINT, 0), elem_id='vop-results')
            with gr.Tab('Upload a clip'):
                zone = gr.HTML(self.drop_zone(names[0]))
            with gr.Tab('Index'):
                table = gr.HTML(elem_id='vop-index')
            # Not with Gradio's queue: its answers use a stream that browsers sometimes open too late. Also, an answer
            # that never arrives must not block the next question.
            shown = dict(api_visibility='private', show_progress='minimal', queue=False, trigger_mode='multiple')
            quiet = dict(shown, show_progress='hidden')
            # page.js never replaces an answer by one to an earlier question
            asking = dict(shown, js='(...asked) => [...asked.slice(0, -1), Date.now()]')
            asked, changed = [query, prompts, count, every, order], [prompts.change, count.release, every.change]
            gr.on([button.click, query.submit], self.search, asked, results, **asking)
            examples.click(self.search_example, [examples, *asked[1:]], [query, results], **asking)
            gr.on(changed, self.search_again, asked, results, **asking)
            prompts.change(self.drop_zone, prompts, zone, **quiet)
            shows_status = [page.load, prompts.change, gr.Timer(_STATUS_INTERVAL).tick]
            gr.on(shows_status, self.status, prompts, [line, table], **quiet)
            self._takes = {query._id: _typed, prompts._id: _one_of(self.collections), count._id: _count,
                           every._id: _chosen, order._id: _order,
                           examples._id: _one_of(range(len(self.texts.examples)))}
        return page

    def inputs(self, page: gr.Blocks) -> Mapping[int, Sequence[Callable[[Any], Any]]]:
        """Return the validators for all values of each event of a built page; see :class:`.guard.Guard`."""
        return {number: [self._takes[component._id] for component in event.inputs]
                for number, event in page.fns.items()}

    @staticmethod
    def options() -> dict:
        """Return options for mounting the page: its style, without Gradio's extras."""
        return dict(
            theme=gr.themes.Default(primary_hue='blue', neutral_hue='slate', font=['system-ui', 'sans-serif'],
                                 font_mono=['ui-monospace', 'monospace']),
            css_paths=[_FOLDER / 'page.css'],
            head='<script src="page.js"></script>',
            footer_links=[], allowed_paths=[], show_error=False, ssr_mode=False, pwa=False, mcp_server=False)

    def _describe(self, error: Exception) -> str:
        """Format an error as one line, without its type and without paths."""
        text = ' '.join(str(getattr(error, 'strerror', None) or error).split())  # strerror lacks the file name
        for collection in self.collections.values():
            for path in (os.path.abspath(collection.index), str(collection.index)):
                text = text.replace(path, collection.index.name)
        return cards.without_paths(text)


def _reason(error: VideoDecodeError, path: str) -> str:
    """Return why an upload can't be read, without its temporary path."""
    return cards.without_paths(' '.join(error.reason.replace(path, 'it').split()))


def _typed(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= _MAX_TYPED):
        raise ValueError('not a text, or too long')
    return value


def _chosen(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError('not a bool')
    return value


def _one_of(values: Iterable[Any]) -> Callable[[Any], Any]:
    """Create a validator for a set of values; a value must also have the same type."""
    known = {(type(value), value) for value in values}

    def take(value: Any) -> Any:
        if (type(value), value) not in known:
            raise ValueError('not one of the choices')
        return value

    return take


def _order(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**53:
        raise TypeError('not a sequence number')
    return value


def _count(value: Any) -> int:
    """Validate the number of results: non-numbers are refused, and numbers out of range are clipped."""
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError('not a number')
    with contextlib.suppress(ValueError, OverflowError):  # NaN, infinity
        return min(max(int(value), 1), _MAX_RESULTS)
    return 1
