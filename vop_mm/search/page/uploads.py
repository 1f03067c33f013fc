"""Uploaded clips, kept only while they are compared."""
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import IO

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from vop_mm.datasets.video_files import VIDEO_EXTENSIONS

from . import cards

_MAX_NAME = 255
_MAX_UPLOADS = 4  # uploads being received or waiting
_MIN_RATE = 16 << 10  # bytes per second, on average


def upload_route(answers: Sequence[Callable[[str, str], str]], max_upload: int, scratch: str,
                 timeout: float = 300., pause: float = 5.) -> Route:
    """Create the route ``/nearest/COLLECTION?name=NAME``, which accepts a posted file and answers with HTML.

    Args:
        answers (Sequence[Callable]): One function per collection; takes the file's path and name and returns HTML.
        max_upload (int): Maximum size in bytes.
        scratch (str): Folder for the file, which is removed after answering.
        timeout (float): Time limit in seconds for receiving the file. Defaults to 300.
        pause (float): Maximum seconds without data, and maximum delay compared to a rate of 16 KiB per second. A slower
            upload loses its place to others. Defaults to 5.
    """
    one_at_a_time = asyncio.Lock()  # waiting does not block any of the server's threads
    places = asyncio.Semaphore(_MAX_UPLOADS)

    async def nearest(request: Request) -> Response:
        number = request.path_params['collection']
        if number >= len(answers):
            return HTMLResponse(cards.message('unknown prompt set'), 404)
        name = request.query_params.get('name', '')[:_MAX_NAME] or 'clip'
        suffix = PurePath(name).suffix.lower()
        if int(request.headers['content-length']) > max_upload:  # the guard lets no request without this header pass
            return HTMLResponse(cards.message(too_large(name, max_upload)), 413)
        if places.locked():
            return HTMLResponse(cards.message('too many uploads at the same time: try again'), 503)
        file_suffix = suffix if suffix in VIDEO_EXTENSIONS else ''
        async with places:
            with tempfile.NamedTemporaryFile(dir=scratch, suffix=file_suffix) as file:
                try:
                    with anyio.fail_after(timeout):
                        await _receive(request, file, max_upload, pause)
                except (ClientDisconnect, TimeoutError, ValueError):
                    return HTMLResponse(cards.message(f'{name} was not received completely, or not in time'), 400)
                async with one_at_a_time:
                    if await request.is_disconnected():
                        return Response(status_code=204)  # the client is gone
                    return HTMLResponse(await run_in_threadpool(answers[number], file.name, name))

    return Route('/nearest/{collection:int}', nearest, methods=['POST'])


async def _receive(request: Request, file: IO[bytes], max_upload: int, pause: float) -> None:
    """Write posted data to a file; ValueError if it is larger than announced, TimeoutError if it arrives too slowly."""
    size, begin = 0, time.monotonic()
    parts = aiter(request.stream())
    while True:
        with anyio.fail_after(pause):
            part = await anext(parts, None)
        if part is None:
            break
        size += len(part)
        if size > max_upload:
            raise ValueError(size)
        if time.monotonic() - begin > pause + size / _MIN_RATE:
            raise TimeoutError
        await run_in_threadpool(file.write, part)
    file.flush()


def too_large(name: str, max_upload: int) -> str:
    """Return the message for a file that is too large."""
    return f'{name} is too large: the limit is {max_upload / 2**20:,.4g} MB'
