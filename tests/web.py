"""A real web server on loopback, with ranges, and with faults on demand."""
import base64
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class WebServer(ThreadingHTTPServer):
    """Serves ``files`` and notes what it was asked.

    Attributes:
        files (dict[str, bytes]): Path -> content.
        redirects (dict[str, str]): Path -> where to.
        requests (list[tuple[str, dict]]): Path and headers (names in lower case) of each request.
        break_after (list[int]): The next answers break off after so many bytes.
        failures (list[int]): Status codes of the next answers.
        chunked (bool): Don't say how long an answer is.
        ranges (bool): Know ranges.
        etags (bool): Send marks.
        pause (float): Seconds before each kilobyte.
        password (str, optional): ``user:password`` that is asked for.
    """
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.files, self.redirects, self.requests = {}, {}, []
        self.break_after, self.failures = [], []
        self.chunked, self.ranges, self.etags, self.pause, self.password = False, True, True, 0., None

    @property
    def url(self) -> str:
        """Of the root."""
        return f'http://127.0.0.1:{self.server_port}'

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):

    def do_GET(self) -> None:
        server, path = self.server, unquote(urlsplit(self.path).path)
        server.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        if server.failures:
            return self._plain(server.failures.pop(0))
        if server.password is not None and self.headers.get('Authorization') != (
                'Basic ' + base64.b64encode(server.password.encode()).decode()):
            return self._plain(401)
        if path in server.redirects:
            return self._plain(302, Location=server.redirects[path])
        if path not in server.files:
            return self._plain(404)
        content = server.files[path]
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        headers, status = {'ETag': etag} if server.etags else {}, 200
        asked = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range', ''))
        if asked and server.ranges and self.headers.get('If-Range', etag) == etag:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers['Content-Range'] = f'bytes {first}-{last}/{len(content)}'
            content, status = content[first:last + 1], 206
        if not server.chunked:
            headers['Content-Length'] = str(len(content))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if server.break_after and len(content) > 1:
            content = content[:server.break_after.pop(0)]
        for first in range(0, len(content), 1024 if server.pause else 1 << 20):
            time.sleep(server.pause)
            self.wfile.write(content[first:first + (1024 if server.pause else 1 << 20)])
        return None

    def _plain(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in {**headers, 'Content-Length': '0'}.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *args) -> None:
        """Nothing to the terminal."""


@contextmanager
def web_server() -> Iterator[WebServer]:
    """A server that runs within the ``with``."""
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
