"""Access control of the server. Gradio exposes many more addresses than this page needs."""
import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .hosts import Hosts, refuses_site

_EVENT = '/gradio_api/run/predict'
_UPLOAD = '/nearest/'  # has its own limits
# The page, its assets, its own videos and uploads, and the part of Gradio's API that its events use. Excluded is
# everything that serves or accepts files by path, fetches addresses or calls functions by name. Paths are short,
# because long names and numbers cause errors in the system and in Python.
_PATHS = re.compile(
    r'(?!.*\.\.|.{200})(?:/|/(clips|pictures)/\d+/\d+|/nearest/\d+|/(assets|static|svelte)/[\w./@-]+'
    r'|/(page\.js|theme\.css|favicon\.ico|config)'
    rf'|{_EVENT}|/gradio_api/(startup-events|info)/?)', re.ASCII)
_ROOT_PATH = re.compile(r'(?:/[\w.~-]+)*', re.ASCII)
_MAX_BODY = 1 << 20  # maximum bytes of an event
_BODY_TIMEOUT = 20  # time limit in seconds for receiving an event
_MAX_EVENTS = 8  # others wait without occupying a thread
# request headers; those set by a proxy are evaluated only here
_DROPPED_HEADERS = re.compile(rb'x-forwarded-.*|forwarded|x-gradio-.*|host')
_SCRIPT = re.compile(rb'<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>', re.DOTALL)
# The page needs no manifest, which doesn't exist, and under a proxy's path its icon is found only if it is named.
_ABSOLUTE_LINK = re.compile(rb'<link rel="manifest" href="/manifest.json"\s*/?>')
# Nothing is loaded from other sites, whatever a name or caption contains. Gradio compiles its templates to functions,
# which requires 'unsafe-eval'.
_POLICY = ("default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
           "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-eval'{}; worker-src 'self' blob:; "
           "base-uri 'self'; object-src 'none'; form-action 'self'; frame-ancestors 'self'")
_HEADERS = {'Content-Security-Policy': _POLICY.format(''), 'Cross-Origin-Resource-Policy': 'same-origin',
            'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'same-origin'}

Inputs = Mapping[int, Sequence[Callable[[Any], Any]]]


class Guard:
    """Middleware that refuses addresses the page doesn't need, oversized requests, and requests from other sites.

    ``inputs`` has for each event of the page a function for each of its values: it returns the value to pass on, and
    raises ValueError or TypeError for a value that the page would not send.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, inputs: Inputs, root_path: str = '') -> None:
        if not _ROOT_PATH.fullmatch(root_path):
            raise ValueError(f'{root_path!r} is not a path like /search')
        self.app, self.hosts, self.inputs, self.root_path = app, hosts, inputs, root_path
        self._events = asyncio.Semaphore(_MAX_EVENTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope['type'] != 'http':
            if scope['type'] == 'lifespan':
                await self.app(scope, receive, send)
            return
        scope = _without_prefix(scope, self.root_path)
        send = _with_headers(_with_hashes(send) if scope['path'] == '/' else send)
        if self.root_path and scope['path'] == self.root_path:  # relative addresses need the slash
            await RedirectResponse(f'{self.root_path.rpartition("/")[2]}/')(scope, receive, send)
            return
        headers = Headers(scope=scope)
        called = self.hosts.called(headers, scope.get('server'))
        refusal = self._refusal(scope, headers, called)
        if refusal is None and scope['path'] == _EVENT:
            try:
                with anyio.fail_after(_BODY_TIMEOUT):
                    event = self._event(await Request(scope, receive).body())
            except ClientDisconnect:
                return
            except TimeoutError:
                refusal = PlainTextResponse('the request was not received in time', 408)
            except (ValueError, KeyError, TypeError, RecursionError):
                refusal = JSONResponse(dict(error='not an event of this page, or an invalid value'), 400)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        plain = _plain_scope(scope, called)
        if scope['path'] != _EVENT:
            await self.app(plain, receive, send)
            return
        async with self._events:
            if not await Request(scope, receive).is_disconnected():  # otherwise the client is gone
                await self.app(plain, _again(event, receive), send)

    def _refusal(self, scope: Scope, headers: Headers, called: str | None) -> Response | None:
        method, path = scope['method'], scope['path']
        if called is None:
            return PlainTextResponse('unknown host name: use --allow-host NAME to accept it', 400)
        if not _PATHS.fullmatch(path):
            return PlainTextResponse('not found', 404)
        if method not in ('GET', 'HEAD', 'POST') or (method != 'POST' and path == _EVENT):
            return PlainTextResponse('method not allowed', 405)
        origin = headers.get('origin')
        if refuses_site(scope, headers) or (origin is not None and not self.hosts.is_own_page(origin, called)):
            return PlainTextResponse('requests from other sites are refused', 403)
        length = headers.get('content-length')
        if 'transfer-encoding' in headers or (length is None and method == 'POST'):
            return PlainTextResponse('Content-Length is missing', 411)
        if length is not None and not _fits(length, method, path):
            return PlainTextResponse('too large', 413)
        return None

    def _event(self, body: bytes) -> bytes:
        """Rebuild an event from validated values.

        For values of other types, Gradio would look for files and addresses to copy. Without a session name, Gradio
        stores nothing: the page has no state.
        """
        event = json.loads(body)
        number = event['fn_index']
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(number)
        takes = self.inputs[number]
        values = [take(value) for take, value in zip(takes, event['data'], strict=True)]
        return json.dumps(dict(data=values, fn_index=number)).encode()


def _fits(length: str, method: str, path: str) -> bool:
    """Return True if a body may have this length; the length of an upload is checked later."""
    if not length.isdecimal() or len(length) > 15:
        return False
    return int(length) <= (0 if method != 'POST' else _MAX_BODY) or (method == 'POST' and path.startswith(_UPLOAD))


def _without_prefix(scope: Scope, prefix: str) -> Scope:
    """Remove a prefix from a request's path: some proxies do so themselves, some don't."""
    path = scope['path'].removeprefix(prefix) if scope['path'].startswith(f'{prefix}/') else scope['path']
    return dict(scope, path=path, raw_path=path.encode(), root_path='')


def _plain_scope(scope: Scope, called: str) -> Scope:
    """Reduce a request to its public host name and the parts that the page needs."""
    headers = [(name, value) for name, value in scope['headers'] if not _DROPPED_HEADERS.fullmatch(name)]
    headers.append((b'host', called.encode()))
    if Headers(scope=scope).get('x-forwarded-proto') == 'https':
        headers.append((b'x-forwarded-proto', b'https'))
    query = scope['query_string'] if scope['path'].startswith(_UPLOAD) else b''
    return dict(scope, headers=headers, query_string=query)


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message['type'] == 'http.response.start':
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return send_with_headers


def _with_hashes(send: Send) -> Send:
    """Add the hashes of a page's scripts to its content security policy."""
    started: list[Message] = []
    content = bytearray()

    async def send_with_hashes(message: Message) -> None:
        if message['type'] == 'http.response.start':
            started.append(message)
            return
        content.extend(message.get('body', b''))
        if message.get('more_body'):
            return
        body = _ABSOLUTE_LINK.sub(b'<link rel="icon" href="favicon.ico" />', bytes(content))
        headers = MutableHeaders(scope=started[0])
        headers['Content-Length'] = str(len(body))
        headers['Content-Security-Policy'] = _POLICY.format(_hashes(body))
        await send(started[0])
        await send(dict(message, body=body))

    return send_with_hashes


def _hashes(page: bytes) -> str:
    """Return the hashes of a page's scripts for its policy: no other script runs, even if a name contains HTML."""
    digests = (hashlib.sha256(script).digest() for script in _SCRIPT.findall(page))
    return ''.join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _again(body: bytes, receive: Receive) -> Receive:
    """Make a request's body available to the next reader."""
    parts = [dict(type='http.request', body=body, more_body=False)]

    async def replay() -> Message:
        return parts.pop() if parts else await receive()

    return replay
