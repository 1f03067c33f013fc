"""Who may stay where there are too many connections: the server of the page with an application of its own."""
import asyncio
import contextlib
import logging
import socket
import threading
import time

import pytest

pytest.importorskip('uvicorn')
MOST = 6
BIG = 64 << 20


async def application(scope, receive, send):
    """Answers at once, or after a while, or with much, or when the body is there."""
    if scope['type'] != 'http':
        return
    path = scope['path']
    if path == '/body':
        while (await receive()).get('more_body'):
            pass
    if path == '/later':
        await asyncio.sleep(1)
    content = bytes(1 << 16)
    count = BIG >> 16 if path == '/big' else 0
    await send(dict(type='http.response.start', status=200, headers=[(b'content-length', b'%d' % (count << 16))]))
    for _ in range(count):
        await send(dict(type='http.response.body', body=content, more_body=True))
    await send(dict(type='http.response.body'))


@pytest.fixture(scope='module')
def port():
    from vop_mm.search.page.connections import Server
    listening = socket.create_server(('127.0.0.1', 0))
    server = Server(application, MOST)
    thread = threading.Thread(target=server.run, args=([listening], ))
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def connect(port):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(('127.0.0.1', port), timeout=10))


def ask(connection, path, method='GET', **headers):
    lines = [f'{method} {path} HTTP/1.1', 'Host: a', *(f'{name}: {value}' for name, value in headers.items())]
    connection.sendall('\r\n'.join([*lines, '', '']).encode())


def is_answered(connection):
    with contextlib.suppress(ConnectionError):
        return connection.recv(1 << 10).startswith(b'HTTP/1.1 200')
    return False


def is_closed(connection):
    connection.settimeout(0.2)
    with contextlib.suppress(ConnectionError):
        try:
            while connection.recv(1 << 20):
                pass
        except TimeoutError:
            return False
    return True


def test_the_idle_go_first_and_the_oldest_among_them(connect):
    uploading = connect()
    ask(uploading, '/body', 'POST', **{'Content-Length': 2})
    kept = connect()
    ask(kept, '/')
    assert is_answered(kept)
    half = connect()
    half.sendall(b'GET / HTTP/1.1\r\n')
    others = [connect() for _ in range(MOST - 3)]
    for _ in range(2):  # in the places of the two that have waited longest
        last = connect()
        ask(last, '/')
        assert is_answered(last)
    assert is_closed(kept) and is_closed(half)
    assert not any(is_closed(other) for other in others)
    uploading.sendall(b'ab')
    assert is_answered(uploading)


def test_those_that_are_being_answered_stay(connect):
    waiting = [connect() for _ in range(MOST)]
    for connection in waiting:
        ask(connection, '/later')
    time.sleep(0.2)
    assert is_closed(connect())  # no place for it
    assert all(is_answered(connection) for connection in waiting)
    last = connect()
    ask(last, '/')
    assert is_answered(last)


def test_who_does_not_read_gives_way(connect):
    readers = [connect() for _ in range(MOST)]
    for i, connection in enumerate(readers):
        ask(connection, '/big', **({'Connection': 'close'} if i % 2 else {}))
    time.sleep(0.5)  # what fits is sent
    for _ in range(MOST):
        last = connect()
        ask(last, '/')
        assert is_answered(last)


def test_the_rest_of_a_request_that_is_answered_is_ignored_for_a_while(connect):
    small = connect()
    ask(small, '/', 'POST', **{'Content-Length': 1000})
    assert is_answered(small)
    small.sendall(bytes(1000))
    ask(small, '/')
    assert is_answered(small)  # the same connection goes on
    silent, began = connect(), time.monotonic()
    ask(silent, '/', 'POST', **{'Content-Length': 10**9})
    assert is_answered(silent) and not is_closed(silent)
    silent.settimeout(10)
    with contextlib.suppress(ConnectionError):
        assert silent.recv(1) == b''
    assert 1 < time.monotonic() - began < 5
    large, sent = connect(), 0
    ask(large, '/', 'POST', **{'Content-Length': 10**9})
    with contextlib.suppress(ConnectionError):
        while sent < BIG:
            sent += large.send(bytes(1 << 16))
    assert sent < BIG // 2


@pytest.mark.parametrize('path, method, headers', [
    (None, None, {}), ('/', 'GET', {}), ('/body', 'POST', {'Content-Length': 10}), ('/big', 'GET', {}),
])
def test_the_end_does_not_wait_for_clients_and_says_nothing(caplog, path, method, headers):
    from vop_mm.search.page.connections import Server
    listening = socket.create_server(('127.0.0.1', 0))
    server = Server(application, MOST)
    thread = threading.Thread(target=server.run, args=([listening], ))
    thread.start()
    with socket.create_connection(listening.getsockname(), timeout=10) as client:
        if path is None:
            client.sendall(b'GET / HTTP/1.1\r\nHo')
        else:
            ask(client, path, method, **headers)
        time.sleep(0.5)  # what fits is sent
        server.should_exit, began = True, time.monotonic()
        thread.join(10)
        assert time.monotonic() - began < 1.5 and not thread.is_alive()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
