"""The search page as a process of its own, and a real browser before it."""
import http.client
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import pytest

from tests.tools import ForkedTool

# the name of a file, which would run in a page that took it for HTML
EVIL = '<img src=x onerror=window.hacked=1>${window.hacked=2}{{value}}"\'&.mp4'
_SWITCHES = ('--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
             '--disable-background-networking', '--disable-component-update', '--disable-sync', '--mute-audio')


class Server:
    """A running search page.

    Attributes:
        url (str): Its address.
        host (str): The same without the protocol.
        tool (ForkedTool): Its process.
        scratch (Path): Where it keeps what it keeps for a while.
    """

    def __init__(self, url: str, tool: ForkedTool, said: IO, scratch: Path) -> None:
        self.url, self.tool, self._said, self.scratch = url, tool, said, scratch
        self.host = urlsplit(url).netloc

    def said(self) -> str:
        """What it has printed."""
        self._said.seek(0)
        return self._said.read()

    def connect(self) -> socket.socket:
        """A bare connection."""
        address = urlsplit(self.url)
        return socket.create_connection((address.hostname, address.port), timeout=30)

    def ask(self, path: str, method: str = 'GET', body: bytes | None = None, **headers: str) -> tuple[int, dict, bytes]:
        """A request exactly as it is given: no path is tidied up on the way.

        Returns:
            tuple[int, dict, bytes]: Status, headers in lower case, and the body.
        """
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.putrequest(method, path, skip_host='Host' in headers)
        if body is not None and 'Content-Length' not in headers:
            headers['Content-Length'] = str(len(body))
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


@contextmanager
def serving(*args: str, cwd: str | Path, app: str = 'demo/app.py', handles: int | None = None) -> Iterator[Server]:
    """``demo/app.py`` on a free port, ready to answer; with so many file descriptors."""
    with tempfile.TemporaryFile('w+') as said, tempfile.TemporaryDirectory() as scratch:
        def before() -> None:
            tempfile.tempdir = scratch
            if handles is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (handles, handles))

        tool = ForkedTool(app, *args, '--port', '0', out=said, err=said, cwd=cwd, before=before)
        try:
            lines = []
            while not lines:
                assert tool.poll() is None, said.seek(0) or said.read()
                said.seek(0)
                lines = [line for line in said.read().splitlines() if line.startswith('search page: ')]
                time.sleep(0.05)
            yield Server(lines[0].split()[2], tool, said, next(Path(scratch).iterdir()))
        finally:
            tool.kill()


@contextmanager
def chromium(*switches: str) -> Iterator:
    """Debian's Chromium without a window; tests skip where there is none."""
    playwright = pytest.importorskip('playwright.sync_api', reason='no playwright: pip install playwright')
    path = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if path is None:
        pytest.skip('no browser: apt install chromium')
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=[*_SWITCHES, *switches])
        yield browser
        browser.close()


def click_search(page) -> None:
    """Click on Search, and wait for the answer to that: earlier questions may still be answered."""
    now = page.evaluate('Date.now()')
    page.click('#vop-search')
    page.wait_for_function("now => document.querySelector('#vop-results [data-order]').dataset.order >= now", arg=now)
