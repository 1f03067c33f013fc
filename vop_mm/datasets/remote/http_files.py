"""Files on web servers, read with the standard library only, to control which server gets which headers."""
import base64
import functools
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from vop_mm.utils.cli import one_line, printable

from ..errors import VideoDecodeError
from .addresses import public_address, split_user, without_secrets
from .scratch import FileStat

_BLOCK = 1 << 20
_TRIES = 3  # tries per request, and interruptions allowed per file
_PAUSE = 0.5  # seconds before the second try; doubled for each further one
_SLOWEST = 50_000  # bytes per second
_BUSY = (429, 500, 502, 503, 504)
_PUBLIC = ('range', 'if-range', 'accept-encoding', 'user-agent')  # headers that any server may see


class HttpFiles:
    """Reads files from ``http://`` and ``https://`` addresses.

    An interrupted download is resumed where it stopped if the server supports ranges and confirms that the file is the
    same. The user and password of an address, and the headers given here, are sent only to the server of the address:
    a redirect to another server is followed without them, and one from https to http is not followed.

    Args:
        headers (Mapping, optional): Headers sent with every request.
        timeout (float): Seconds to connect and between two chunks; a rate below 50 kB/s for longer than this is an
            error as well. Defaults to 60.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, timeout: float = 60.) -> None:
        self.headers, self.timeout = dict(headers or {}), timeout

    def stat(self, url: str) -> FileStat:
        """Return size and tag of a file, requesting at most one byte of it.

        Raises:
            VideoDecodeError: The server doesn't serve the file.
        """
        with closing(self._get(url, Range='bytes=0-0')) as response:  # many servers refuse HEAD for signed addresses
            return _stat(response)

    @contextmanager
    def open(self, url: str) -> Iterator[tuple[FileStat, Iterator[bytes]]]:
        """Request a file.

        Args:
            url (str): Address of the file.

        Yields:
            tuple[FileStat, Iterator[bytes]]: Size and tag, and the content.

        Raises:
            VideoDecodeError: The server doesn't serve the file or is too slow; also while the content is read.
        """
        with closing(self._get(url)) as response:
            stat = _stat(response)
            with closing(self._chunks(url, response, stat)) as chunks:
                yield stat, chunks

    def _chunks(self, url: str, response: http.client.HTTPResponse, stat: FileStat) -> Iterator[bytes]:
        done, breaks, began = 0, 0, time.monotonic()
        while True:
            why = ''
            try:
                while chunk := response.read1(_BLOCK):
                    done += len(chunk)
                    if time.monotonic() - began > self.timeout + done / _SLOWEST:
                        raise VideoDecodeError(public_address(url), f'the server is slower than {_SLOWEST:,} bytes per '
                                               f'second: {done:,} bytes in {time.monotonic() - began:.0f} s')
                    yield chunk
                if done >= (stat.size or 0):
                    return
            except (OSError, http.client.HTTPException) as e:
                why = f' ({_reason(e)})'
            finally:
                response.close()
            breaks, problem = breaks + 1, f'the connection broke off after {done:,} bytes{why}'
            if breaks == _TRIES or stat.tag is None or stat.tag.startswith('W/'):
                raise VideoDecodeError(public_address(url), problem)
            response = self._get(url, Range=f'bytes={done}-', **{'If-Range': stat.tag})
            if _first_byte(response) != done or stat.differs_from(_stat(response)):
                response.close()
                raise VideoDecodeError(public_address(url), f'{problem}, and the server gives no rest of the same file')

    def _get(self, url: str, **headers: str) -> http.client.HTTPResponse:
        address, user = split_user(url)
        request = urllib.request.Request(address, headers={'User-Agent': 'vop_mm', 'Accept-Encoding': 'identity'})
        private = dict(self.headers)
        if user is not None:
            private['Authorization'] = f'Basic {base64.b64encode(user.encode()).decode()}'
        for key, value in {**private, **headers}.items():
            request.add_header(key, value)
        for attempt in range(1, _TRIES + 1):
            try:
                return _opener().open(request, timeout=self.timeout)
            except urllib.error.HTTPError as e:
                e.close()
                problem = f'HTTP {e.code} {e.reason!s:.100}'
                if e.code not in _BUSY:
                    break
            except (OSError, http.client.HTTPException, ValueError) as e:
                problem = _reason(e)
                if not isinstance(getattr(e, 'reason', e), ConnectionError):
                    break
            if attempt < _TRIES:
                time.sleep(_PAUSE * 2**(attempt - 1))
        raise VideoDecodeError(public_address(url), printable(without_secrets(problem)))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects without sending the first server's private headers to another one."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Return the next request.

        Raises:
            urllib.error.URLError: The redirect leads to a scheme that is not allowed, or names a user.
        """
        here, there = urlsplit(req.full_url), urlsplit(newurl)
        if there.scheme not in ('http', 'https') or (here.scheme, there.scheme) == ('https', 'http'):
            raise urllib.error.URLError(f'a redirect from {here.scheme} to {there.scheme} is not followed')
        if '@' in there.netloc:
            raise urllib.error.URLError('a redirect that names a user is not followed')
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            request.headers = {key: value for key, value in request.headers.items() if key.lower() in _PUBLIC}
        return request


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects)  # slow, because it reads the system's certificates


def _stat(response: http.client.HTTPResponse) -> FileStat:
    headers = response.headers
    size = headers.get('Content-Length', '')
    if response.status == 206:
        size = headers.get('Content-Range', '').rpartition('/')[2]
    tag = headers.get('ETag') or headers.get('Last-Modified')
    return FileStat(int(size) if re.fullmatch('[0-9]{1,18}', size) else None, tag and printable(tag))


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    found = re.match('bytes ([0-9]{1,18})-', response.headers.get('Content-Range', ''))
    return int(found[1]) if response.status == 206 and found else None


def _reason(error: Exception) -> str:
    reason = getattr(error, 'reason', error)
    if isinstance(reason, TimeoutError):
        return 'the server does not answer in time'
    return getattr(reason, 'strerror', None) or (one_line(reason) if isinstance(reason, Exception) else str(reason))
