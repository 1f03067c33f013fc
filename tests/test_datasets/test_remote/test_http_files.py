import base64
import hashlib
import time

import numpy as np
import pytest

from tests.web import web_server
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.remote import FileStat, HttpFiles, http_files

CONTENT = np.random.default_rng(0).bytes(3_000_000)
ETAG = f'"{hashlib.md5(CONTENT).hexdigest()}"'


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http_files, '_PAUSE', 0.01)
    with web_server() as server:
        server.files['/a b.mp4'] = CONTENT
        yield server


def read(files: HttpFiles, url: str) -> bytes:
    with files.open(url) as (_, chunks):
        return b''.join(chunks)


def error(files: HttpFiles, url: str) -> str:
    with pytest.raises(VideoDecodeError) as caught:
        read(files, url)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_content_size_and_mark(server):
    files, url = HttpFiles(), f'{server.url}/a%20b.mp4'
    assert files.stat(url) == FileStat(len(CONTENT), ETAG)
    assert server.requests[-1][1]['range'] == 'bytes=0-0'  # no more is asked for
    with files.open(url) as (stat, chunks):
        assert stat == FileStat(len(CONTENT), ETAG) and b''.join(chunks) == CONTENT
    server.ranges = server.etags = False
    assert files.stat(url) == FileStat(len(CONTENT), None)
    server.chunked = True
    with files.open(url) as (stat, chunks):
        assert stat.size is None and b''.join(chunks) == CONTENT


def test_a_connection_that_breaks_off_is_taken_up_again(server):
    server.break_after = [1_000_000, 500_000]
    assert read(HttpFiles(), f'{server.url}/a%20b.mp4') == CONTENT
    asked = [headers.get('range') for _, headers in server.requests]
    assert asked == [None, 'bytes=1000000-', 'bytes=1500000-']
    assert {headers['if-range'] for _, headers in server.requests[1:]} == {ETAG}


@pytest.mark.parametrize('change', ['breaks', 'no ranges', 'no mark', 'another file'])
def test_where_the_rest_of_the_same_file_is_not_to_be_had(server, change):
    server.break_after = [1000, 1000, 1000] if change == 'breaks' else [1000]
    server.ranges, server.etags = change != 'no ranges', change != 'no mark'
    with HttpFiles().open(f'{server.url}/a%20b.mp4') as (_, chunks):
        with pytest.raises(VideoDecodeError, match=r'a%20b\.mp4: the connection broke off after [13],000 bytes'):
            for _ in chunks:
                if change == 'another file':
                    server.files['/a b.mp4'] = CONTENT[:-1] + b'x'


def test_errors_of_the_server(server):
    assert error(HttpFiles(), f'{server.url}/b.mp4?id=1&token=hush') == \
        f"can't decode {server.url}/b.mp4?id=1&token=: HTTP 404 Not Found"
    assert len(server.requests) == 1
    server.failures = [503, 429]  # busy: asked again
    assert read(HttpFiles(), f'{server.url}/a%20b.mp4') == CONTENT
    server.failures = [500, 500, 500]
    assert error(HttpFiles(), f'{server.url}/a%20b.mp4').endswith('HTTP 500 Internal Server Error')


def test_no_server(server):
    address = server.url
    server.server_close()
    message = error(HttpFiles(), address.replace('://', '://user:hush@') + '/a.mp4')
    assert message == f"can't decode {address}/a.mp4: Connection refused"


def test_a_server_that_does_not_answer_or_drips(server, monkeypatch):
    server.pause = 1.5
    began = time.monotonic()
    assert 'in time' in error(HttpFiles(timeout=0.5), f'{server.url}/a%20b.mp4')
    server.pause = 0.05  # 20 kB/s
    server.etags = False
    assert 'slower than 50,000 bytes per second' in error(HttpFiles(timeout=0.5), f'{server.url}/a%20b.mp4')
    assert time.monotonic() - began < 15


def test_user_and_headers_go_to_this_server_alone(server):
    server.password = 'us/er:h@sh'
    url = server.url.replace('://', '://us%2Fer:h%40sh@')
    server.redirects['/moved'] = '/a%20b.mp4'
    files = HttpFiles(headers={'X-Token': 'hush', 'Cookie': 'c=1'})
    assert read(files, f'{url}/moved') == CONTENT
    assert all(headers['authorization'] == f'Basic {base64.b64encode(b"us/er:h@sh").decode()}'
               and headers['x-token'] == 'hush' for _, headers in server.requests)
    with web_server() as other:
        other.files['/c'] = b'content'
        server.redirects['/away'] = f'{other.url}/c'
        assert read(files, f'{url}/away') == b'content'
        assert other.requests[0][1].keys() <= {'host', 'user-agent', 'accept-encoding', 'connection'}
        server.redirects['/named'] = other.url.replace('://', '://a:hush2@') + '/c'
        message = error(files, f'{url}/named')
        assert 'names a user' in message and 'hush' not in message and len(other.requests) == 1
    assert 'h@sh' not in error(files, f'{url}/gone') and 'HTTP 404' in error(files, f'{url}/gone')


@pytest.mark.parametrize('target', ['file:///etc/passwd', 'ftp://127.0.0.1/a', 'data:,a', 's3://bucket/a'])
def test_redirects_to_other_schemes(server, target):
    server.redirects['/x'] = target
    message = error(HttpFiles(), f'{server.url}/x')
    assert 'not allowed' in message or 'is not followed' in message


def test_endless_redirects(server):
    server.redirects.update({'/x': '/y', '/y': '/x'})
    assert 'HTTP 302' in error(HttpFiles(), f'{server.url}/x')
    assert len(server.requests) < 30
