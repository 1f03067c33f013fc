"""What the server answers at all. Gradio brings many more addresses than this page needs."""
import json
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EVENT = '/gradio_api/run/predict'
# The page, its parts, its own videos and uploads, and of Gradio's interface what its events go through. What serves or
# takes files by their paths, fetches addresses or calls functions by name is not among them.
_PATHS = re.compile(
    r'(?!.*\.\.)(?:/|/(clips|pictures)/\d+/\d+|/nearest/\d+|/(assets|static|svelte)/[\w./@-]+'
    r'|/(theme\.css|favicon\.ico|manifest\.json|config)'
    rf'|{_EVENT}|/gradio_api/(heartbeat/\w+|startup-events|info|reset)/?)')
_UPLOAD = '/nearest/'  # limits what it reads itself
_LONGEST = 1 << 20  # bytes of another request
_HEADERS = {
    # nothing is fetched from elsewhere, whatever a name or caption would like; Gradio makes functions of its templates
    'Content-Security-Policy': "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
                               "font-src 'self' data:; style-src 'self' 'unsafe-inline'; "
                               "script-src 'self' 'unsafe-inline' 'unsafe-eval'; worker-src 'self' blob:; "
                               "object-src 'none'; form-action 'self'; frame-ancestors 'self'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
}


class Guard:
    """Middleware that refuses what the page doesn't need, requests that are too large, and those of other sites.

    Args:
        app (ASGIApp): What is guarded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope['type'] != 'http':
            if scope['type'] == 'lifespan':
                await self.app(scope, receive, send)
            return
        refusal = _refusal(scope)
        if refusal is None and scope['path'] == _EVENT:
            try:
                event = _plain_event(await Request(scope, receive).body())
            except ClientDisconnect:
                return
            if event is None:
                refusal = PlainTextResponse('plain values are taken', 400)
            else:
                receive = _again(event, receive)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _refusal(scope: Scope) -> PlainTextResponse | None:
    if not _PATHS.fullmatch(scope['path']):
        return PlainTextResponse('not found', 404)
    if scope['method'] in ('GET', 'HEAD'):
        return None
    headers = Headers(scope=scope)
    if headers.get('sec-fetch-site', 'same-origin') not in ('same-origin', 'none'):
        return PlainTextResponse('from another site', 403)
    length = headers.get('content-length', '')
    if not length.isdecimal():
        return PlainTextResponse('the length is missing', 411)
    if len(length) > 15 or (int(length) > _LONGEST and not scope['path'].startswith(_UPLOAD)):
        return PlainTextResponse('too large', 413)
    return None


def _plain_event(body: bytes) -> bytes | None:
    """An event, written anew, if all its values are plain, as those of this page's inputs are.

    In any other value Gradio would look for files and addresses to copy.
    """
    try:
        event = json.loads(body)
        values = event['data']
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    plain = isinstance(values, list) and not any(isinstance(value, (list, dict)) for value in values)
    return json.dumps(event).encode() if plain else None


def _again(body: bytes, receive: Receive) -> Receive:
    """A request's body, for whoever reads it next."""
    parts = [dict(type='http.request', body=body, more_body=False)]

    async def replay() -> Message:
        return parts.pop() if parts else await receive()

    return replay
