"""Server connections: limited in number, and closed when clients hold them without using them."""
import asyncio
import functools
import logging
import resource
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_MAX_CONNECTIONS = 256
_MIN_CONNECTIONS = 8
_OTHER_DESCRIPTORS = 112  # files of the index, libraries, decoders and uploads, and connections being accepted
_HEAD_TIMEOUT = 10.  # time limit in seconds for receiving a request's head
_IGNORE_TIMEOUT = 2.  # limits in seconds and bytes for the rest of a request that was already answered
_IGNORE_BYTES = 1 << 18
_ACCEPT_BATCH = 16
_BACKLOG = 1024  # connections that wait in the kernel to be accepted


class Connection(H11Protocol):
    """An HTTP connection with limits that uvicorn lacks.

    There is a time limit for a request's head. Data that arrives after an answer that didn't wait for the whole body is
    ignored for a short time, and then the connection is closed. If there are too many connections, the one that has
    waited longest for its client is closed, starting with those without a request.
    """

    def __init__(self, *args: Any, max_open: int, head_timeout: float = _HEAD_TIMEOUT, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_open, self._head_timeout = max_open, head_timeout
        self._waits_since = 0.
        self._given_up = False
        self._deadline: asyncio.TimerHandle | None = None
        self._ignored: int | None = None  # bytes after an answer to an incomplete request

    # -- callbacks of the event loop ----------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._set_deadline(self._head_timeout)
        connections = [other for other in self.connections if not other._given_up]
        if len(connections) > self._max_open:
            waiting = [other for other in connections if other is not self and other.waits_for_client()]
            min(waiting, key=lambda other: (other._has_request(), other._waits_since), default=self).give_up()

    def data_received(self, data: bytes) -> None:
        if self._ignored is not None:
            self._ignored += len(data)
            if self._ignored > _IGNORE_BYTES:
                self.give_up()
                return
        super().data_received(data)
        if self._ignored is not None and self.conn.their_state is not h11.SEND_BODY:  # the request ended after all
            self._ignored = None
            self._set_deadline(None)
        if self._has_request():
            self._waits_since = self.loop.time()
            self._set_deadline(None)
        elif self._deadline is None and not self.transport.is_closing():
            self._waits_since = self.loop.time()
            self._set_deadline(self._head_timeout)

    def on_response_complete(self) -> None:
        # uvicorn limits the time until the next request
        super().on_response_complete()
        self._waits_since = self.loop.time()
        if self.conn.their_state is h11.SEND_BODY and not self._has_request():
            self._ignored = 0
            self._set_deadline(_IGNORE_TIMEOUT)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._waits_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._waits_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        super().connection_lost(exc)

    # -- states -------------------------------------------------------------------------------------------------------
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def waits_for_client(self) -> bool:
        """Return True if nothing happens until the client reads or sends something."""
        if not self._has_request() or self.flow.write_paused or self.transport.is_closing():
            return True
        return self.cycle.more_body and not self.cycle.response_started

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.give_up)

    def give_up(self) -> None:
        """Close the connection immediately, whatever is in progress."""
        self._given_up = True
        self._set_deadline(None)
        self.transport.abort()


class Server(uvicorn.Server):
    """Accepts connections in small steps, so that those over the limit are closed before descriptors run out."""

    def __init__(self, app: Callable, max_open: int | None = None) -> None:
        max_open = max_open or _max_connections()
        super().__init__(uvicorn.Config(
            app, http=functools.partial(Connection, max_open=max_open), ws='none', backlog=_ACCEPT_BATCH,
            limit_concurrency=4 * max_open,  # number of requests, including those of disconnected clients
            log_config=None, access_log=False, proxy_headers=False, server_header=False,
            timeout_graceful_shutdown=3))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for listening in sockets or ():
            listening.listen(_BACKLOG)  # uvicorn uses its backlog both for this and for the step size

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop without waiting for clients, and without a log line for each unfinished answer."""
        logging.getLogger('uvicorn').setLevel(logging.CRITICAL)
        for connection in list(self.server_state.connections):
            if connection.waits_for_client():
                connection.give_up()
        await super().shutdown(sockets=sockets)


def _max_connections() -> int:
    """Return the number of connections that there are descriptors for, each with a file being sent."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return min(max((limit - _OTHER_DESCRIPTORS) // 2, _MIN_CONNECTIONS), _MAX_CONNECTIONS)
