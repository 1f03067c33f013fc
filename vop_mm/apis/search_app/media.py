"""The videos of indexes and pictures of them, asked for by number: there is no way to name a path."""
import asyncio
import contextlib
import threading
from collections.abc import Sequence
from pathlib import PurePath

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from vop_mm.datasets.decoding import DecodeProcess
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.visualization.search_page import picture_of

from .cards import printable
from .collection import Collection

_TYPES = {'.m4v': 'video/mp4', '.mkv': 'video/x-matroska', '.mov': 'video/mp4', '.mp4': 'video/mp4',
          '.ogv': 'video/ogg', '.webm': 'video/webm'}
_KEPT = {'Cache-Control': 'private, max-age=86400'}  # addresses change with the content


class Pictures:
    """Stills of videos, made in a process that may die. Several threads may ask.

    Args:
        timeout (float): Seconds that one may take.
    """

    def __init__(self, timeout: float) -> None:
        self._process, self._lock = DecodeProcess(picture_of, timeout), threading.Lock()
        with contextlib.suppress(VideoDecodeError):
            self.of('')  # starts the process before there are threads and connections

    def of(self, path: str, start: float | None = None, end: float | None = None) -> bytes:
        """JPEG of the middle of a moment; raises VideoDecodeError where the video can't be read."""
        with self._lock:
            return self._process.call(path, path, start, end)


def media_routes(collections: Sequence[Collection], pictures: Pictures) -> list[Route]:
    """Routes ``/clips/COLLECTION/CLIP`` (the whole file, or ranges of it) and ``/pictures/COLLECTION/CLIP``.

    Args:
        collections (Sequence[Collection]): Asked for by their place.
        pictures (Pictures): Makes the stills.

    Returns:
        list[Route]: For an application.
    """
    one_at_a_time = asyncio.Lock()  # waiting takes none of the server's threads

    def find(request: Request) -> tuple[str, float, float]:
        number = request.path_params['collection']
        if number >= len(collections):
            raise FileNotFoundError('no such collection')
        return collections[number].clip(request.path_params['clip'])

    async def clip(request: Request) -> Response:
        try:
            path, *_ = await run_in_threadpool(find, request)
        except (OSError, ValueError) as e:
            return PlainTextResponse(str(e), 404)
        name = PurePath(path)
        media_type = _TYPES.get(name.suffix.lower())
        return FileResponse(path, media_type=media_type or 'application/octet-stream', filename=printable(name.name),
                            content_disposition_type='inline' if media_type else 'attachment', headers=_KEPT)

    async def picture(request: Request) -> Response:
        try:
            path, start, end = await run_in_threadpool(find, request)
            async with one_at_a_time:
                content = await run_in_threadpool(pictures.of, path, start, end)
        except VideoDecodeError as e:
            return PlainTextResponse(printable(e.reason), 404)
        except (OSError, ValueError) as e:
            return PlainTextResponse(str(e), 404)
        return Response(content, media_type='image/jpeg', headers=_KEPT)

    return [Route('/clips/{collection:int}/{clip:int}', clip), Route('/pictures/{collection:int}/{clip:int}', picture)]
