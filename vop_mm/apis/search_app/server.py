"""The page as a server."""
import contextlib
import functools
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from .collection import Collection
from .media import Pictures, media_routes
from .texts import Texts

_LOOPBACK = ('127.0.0.1', 'localhost', '::1')


def serve(collections: Sequence[Collection], texts: Texts, host: str = '127.0.0.1', port: int = 7860,
          max_upload: int = 100 << 20, timeout: float = 20.) -> None:
    """Serve the page until the process is told to end.

    Args:
        collections (Sequence[Collection]): What is searched.
        texts (Texts): What the page offers.
        host (str): Address to listen on. Defaults to ``'127.0.0.1'``: nobody else can reach it.
        port (int): 0 takes a free one. Defaults to 7860.
        max_upload (int): Bytes of an uploaded file. Defaults to 100 MiB.
        timeout (float): Seconds that decoding a picture may take. Defaults to 20.

    Raises:
        OSError: The address is taken, or not this machine's.
    """
    pictures = Pictures(timeout)
    listening = _listen(host, port)
    with listening, tempfile.TemporaryDirectory(prefix='vop_mm_page_') as scratch, _ended_by_sigterm():
        app = make_app(collections, texts, pictures, scratch, max_upload, _LOOPBACK if host in _LOOPBACK else None)
        port = listening.getsockname()[1]
        print(f'search page: http://{f"[{host}]" if ":" in host else host}:{port} (Ctrl-C ends it)', flush=True)
        if host not in _LOOPBACK:
            print('warning: whoever reaches this address sees the videos of the index and may upload files; there is '
                  'no password', file=sys.stderr, flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=3))
        server.run(sockets=[listening])


def make_app(collections: Sequence[Collection], texts: Texts, pictures: Pictures, scratch: str, max_upload: int,
             hosts: Sequence[str] | None = None) -> Callable:
    """The page with the videos, guarded, as an ASGI application.

    Args:
        collections, texts, max_upload: As :func:`serve` takes them.
        pictures (Pictures): Makes the stills.
        scratch (str): Folder for what is kept for a while.
        hosts (Sequence[str], optional): Names by which the server may be called. None: any.

    Returns:
        Callable: For uvicorn.
    """
    # read when gradio is imported: where it writes, and that nothing is told or kept
    os.environ.update(GRADIO_TEMP_DIR=scratch, GRADIO_ANALYTICS_ENABLED='False', GRADIO_RUN_HISTORY='False',
                      HF_HUB_DISABLE_TELEMETRY='1')
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from .guard import Guard
    from .page import SearchPage
    from .uploads import upload_route

    page = SearchPage(collections, texts, pictures, max_upload)
    nearest = [functools.partial(page.nearest, collection.name) for collection in collections]
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None,
                  routes=[*media_routes(collections, pictures), upload_route(nearest, max_upload, scratch)])
    app = gr.mount_gradio_app(app, page.build(), path='/', **page.options())
    app.add_middleware(Guard)
    if hosts is not None:  # a page from elsewhere can't reach a server on loopback by a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return app


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as e:
        raise OSError(f'can not listen on {host}, port {port}: {getattr(e, "strerror", None) or e}') from None


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the server as Ctrl-C does, so that uploads are removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
