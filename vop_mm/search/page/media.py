"""Serve the videos of indexes and stills of them by number; no path can be requested."""
import asyncio
import contextlib
import os
import re
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import PurePath
from typing import BinaryIO
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from vop_mm.datasets.decoding import DecodeProcess
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.visualization.html import valid

from ..stills import middle_frame
from .collection import Clip, Collection
from .served import NOT_SERVED, path_by_handle

_MEDIA_TYPES = {'.m4v': 'video/mp4', '.mkv': 'video/x-matroska', '.mov': 'video/mp4', '.mp4': 'video/mp4',
          '.ogv': 'video/ogg', '.webm': 'video/webm'}
_CACHE = {'Cache-Control': 'private, max-age=86400'}  # addresses change with the content
_RANGE = re.compile(r'bytes=(\d{0,18})-(\d{0,18})', re.ASCII)
_MAX_READ = 1 << 18


class Pictures:
    """Makes stills of videos in a process that may die, with a time limit in seconds. Thread-safe."""

    def __init__(self, timeout: float) -> None:
        self._process, self._lock = DecodeProcess(middle_frame, timeout), threading.Lock()
        with contextlib.suppress(VideoDecodeError):
            self.of('')  # starts the process before there are threads and connections

    def of(self, path: str, start: float | None = None, end: float | None = None) -> bytes:
        """Return a JPEG of the middle of a moment; raise VideoDecodeError if the video can't be read."""
        with self._lock:
            return self._process.call(path, path, start, end)


class _File:
    """Response that sends an open file, or a range of it, and closes it; the name is for downloads."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        found = os.fstat(self._file.fileno())
        media_type = _MEDIA_TYPES.get(PurePath(self._name).suffix.lower())
        tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        name = quote(valid(self._name), safe='')
        headers = {**_CACHE, 'Accept-Ranges': 'bytes', 'ETag': tag,
                   'Content-Disposition': f"{'inline' if media_type else 'attachment'}; filename*=utf-8''{name}"}
        asked = request.headers.get('range') if request.headers.get('if-range', tag) == tag else None
        span = _span(asked, found.st_size)
        first, stop = span or (0, found.st_size)
        if span is not None:
            if first >= stop:
                return PlainTextResponse('range not satisfiable', 416, {'Content-Range': f'bytes */{found.st_size}'})
            headers['Content-Range'] = f'bytes {first}-{stop - 1}/{found.st_size}'
        headers['Content-Length'] = str(stop - first)
        content = _read(self._file, first, first if request.method == 'HEAD' else stop)
        return StreamingResponse(content, 206 if 'Content-Range' in headers else 200, headers,
                                 media_type or 'application/octet-stream')


def media_routes(collections: Sequence[Collection], pictures: Pictures) -> list[Route]:
    """Create the routes ``/clips/COLLECTION/CLIP`` (a file, or a range of it) and ``/pictures/COLLECTION/CLIP``."""
    one_at_a_time = asyncio.Lock()  # waiting does not block any of the server's threads

    async def find(request: Request) -> Clip | None:
        with contextlib.suppress(OSError, ValueError, IndexError):  # an error of the index may contain folder names
            clips = collections[request.path_params['collection']].clip
            return await run_in_threadpool(clips, request.path_params['clip'])

    async def clip(request: Request) -> Response | _File:
        found = await find(request)
        return PlainTextResponse(NOT_SERVED, 404) if found is None else _File(found.file, PurePath(found.path).name)

    async def picture(request: Request) -> Response:
        async with one_at_a_time:
            if await request.is_disconnected():
                return Response(status_code=204)  # the client is gone
            found = await find(request)
            if found is None:
                return PlainTextResponse(NOT_SERVED, 404)
            with found.file:
                path = path_by_handle(found.file, found.path)
                try:
                    content = await run_in_threadpool(pictures.of, path, found.start, found.end)
                except (VideoDecodeError, OSError, ValueError):
                    return PlainTextResponse('this video cannot be decoded', 404)
        return Response(content, media_type='image/jpeg', headers=_CACHE)

    return [Route('/clips/{collection:int}/{clip:int}', clip), Route('/pictures/{collection:int}/{clip:int}', picture)]


def _span(asked: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte of a requested range, and the one after the last.

    None if no range or several were requested: HTTP allows sending the whole file then.
    """
    match = _RANGE.fullmatch((asked or '').strip())
    if match is None or not any(match.groups()):
        return None
    if not match[1]:  # the last bytes
        return max(size - int(match[2]), 0), size
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    return None if match[2] and last < first else (first, min(last + 1, size))


async def _read(file: BinaryIO, first: int, stop: int) -> AsyncIterator[bytes]:
    while first < stop:
        part = await run_in_threadpool(os.pread, file.fileno(), min(stop - first, _MAX_READ), first)
        if not part:
            raise OSError('the file became shorter while it was sent')
        first += len(part)
        yield part
