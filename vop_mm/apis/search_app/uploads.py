"""Clips that are uploaded: kept while they are compared, and no longer."""
import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import PurePath

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from vop_mm.index.indexing import VIDEO_SUFFIXES

from . import cards

_LONGEST_NAME = 255


def upload_route(answers: Sequence[Callable[[str, str], str]], max_upload: int, scratch: str) -> Route:
    """Route ``/nearest/COLLECTION?name=NAME``, to which a file is posted; it answers with HTML.

    Args:
        answers (Sequence[Callable]): One for each collection: takes the file's path and its name.
        max_upload (int): Bytes that are taken.
        scratch (str): Folder for the file, which is gone when the answer is there.

    Returns:
        Route: For an application.
    """
    one_at_a_time = asyncio.Lock()  # waiting takes none of the server's threads

    async def nearest(request: Request) -> Response:
        number = request.path_params['collection']
        if number >= len(answers):
            return HTMLResponse(cards.message('no such prompt set'), 404)
        name = request.query_params.get('name', '')[:_LONGEST_NAME] or 'clip'
        suffix = PurePath(name).suffix.lower()
        refusal = HTMLResponse(cards.message(too_large(name, max_upload)), 413)
        if int(request.headers['content-length']) > max_upload:  # the guard lets nothing pass that has none
            return refusal
        with tempfile.NamedTemporaryFile(dir=scratch, suffix=suffix if suffix in VIDEO_SUFFIXES else '') as file:
            size = 0
            try:
                async for part in request.stream():
                    size += len(part)
                    if size > max_upload:
                        return refusal
                    await run_in_threadpool(file.write, part)
            except ClientDisconnect:
                return Response(status_code=400)
            file.flush()
            async with one_at_a_time:
                return HTMLResponse(await run_in_threadpool(answers[number], file.name, name))

    return Route('/nearest/{collection:int}', nearest, methods=['POST'])


def too_large(name: str, max_upload: int) -> str:
    """What is said of a file that is too large."""
    return f'{name} is too large: at most {max_upload / 2**20:,.4g} MB are taken'
