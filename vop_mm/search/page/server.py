"""Server of the search page."""
import contextlib
import functools
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vop_mm.utils.cli import printable
from vop_mm.utils.files import temporary_folder

from .collection import Collection
from .connections import Server
from .hosts import ANY_ADDRESS, LOOPBACK, Hosts
from .logs import log_few_lines
from .media import Pictures, media_routes
from .texts import Texts

_SCRIPT = Path(__file__).with_name('page.js')


def serve(collections: Sequence[Collection], texts: Texts, host: str = '127.0.0.1', port: int = 7860,
          max_upload: int = 100 << 20, timeout: float = 20., names: Sequence[str] = (), root_path: str = '') -> None:
    """Serve the page until the process is stopped; the options are those of ``demo/app.py``.

    Raises:
        OSError: The address is in use, or not one of this machine.
        ValueError: A name or the path is invalid.
    """
    hosts, root_path = Hosts(host, names), root_path.rstrip('/')
    pictures = Pictures(timeout)
    listening = _listen(host, port)
    with listening, temporary_folder(None, 'page') as scratch, _ended_by_sigterm():
        app = make_app(collections, texts, pictures, str(scratch), max_upload, hosts, root_path)
        log_few_lines()
        port = listening.getsockname()[1]
        for collection in collections:
            print(printable(f'{collection.name}: serving the videos in {collection.status().videos}'), flush=True)
        reached = ANY_ADDRESS.get(host, host)
        reached = f'[{reached}]' if ':' in reached else reached
        print(f'search page: http://{reached}:{port} (Ctrl-C to stop)', flush=True)
        if host not in LOOPBACK or names:
            print('warning: everyone who can reach this address sees the videos of the index and can upload files, '
                  'without a password; other host names need --allow-host',
                  file=sys.stderr, flush=True)
        Server(app).run(sockets=[listening])


def make_app(collections: Sequence[Collection], texts: Texts, pictures: Pictures, scratch: str, max_upload: int,
             hosts: Hosts, root_path: str = '') -> Callable:
    """Build the page and its videos, protected by a guard, as an ASGI application; see :func:`serve`."""
    # gradio reads these on import: its temporary folder, and no telemetry or history
    os.environ.update(GRADIO_TEMP_DIR=scratch, GRADIO_ANALYTICS_ENABLED='False', GRADIO_RUN_HISTORY='False',
                      HF_HUB_DISABLE_TELEMETRY='1')
    import gradio as gr
    from fastapi import FastAPI
    from starlette.responses import FileResponse
    from starlette.routing import Route

    from .guard import Guard
    from .page import SearchPage
    from .uploads import upload_route

    page = SearchPage(collections, texts, pictures, max_upload)
    blocks = page.build()
    nearest = [functools.partial(page.nearest, collection.name) for collection in collections]
    script = Route('/page.js', lambda request: FileResponse(_SCRIPT, media_type='text/javascript'))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None,
                  routes=[*media_routes(collections, pictures), upload_route(nearest, max_upload, scratch), script])
    app = gr.mount_gradio_app(app, blocks, path='/', root_path=root_path, **page.options())
    return Guard(app, hosts, page.inputs(blocks), root_path)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as e:
        raise OSError(f'cannot listen on {host}, port {port}: {getattr(e, "strerror", None) or e}') from None


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Stop the server on SIGTERM as on Ctrl-C, so that uploads are removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
