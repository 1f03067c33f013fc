"""What clients of the page can't do: send without end, hold what others need, fill memory or the log."""
import contextlib
import json
import os
import select
import socket
import time

import pytest

from tests.browser import serving
from tests.videos import encode_video

MB = 1 << 20


@pytest.fixture(scope='module')
def crowded(folder):
    """A server with few file descriptors."""
    with serving('vop', '--follow-links', cwd=folder, handles=256) as server:
        yield server


def request(head, **headers):
    lines = [head, 'Host: 127.0.0.1', *(f'{name.replace("_", "-")}: {value}' for name, value in headers.items())]
    return '\r\n'.join([*lines, '', '']).encode()


def memory(server):
    """Bytes that the server has in memory."""
    with open(f'/proc/{server.tool.pid}/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def processor_time(server):
    """Seconds that the server has computed."""
    with open(f'/proc/{server.tool.pid}/stat') as file:
        return sum(map(int, file.read().rpartition(')')[2].split()[11:13])) / os.sysconf('SC_CLK_TCK')


def send_without_end(server, head, part, most=64 * MB):
    """Send until the server closes: how many bytes went, and the status of its answer."""
    sent, answer = 0, b''
    with server.connect() as connection, contextlib.suppress(ConnectionError, TimeoutError):
        connection.sendall(head)
        connection.settimeout(10)
        while sent < most:
            readable, _, _ = select.select([connection], [], [], 0)
            if readable:
                got = connection.recv(MB)
                answer += got
                if not got:
                    break
            sent += connection.send(part)
    return sent, answer[9:12]


@pytest.mark.parametrize('path', ['/gradio_api/run/predict', '/', '/clips/0/1', '/nearest/0?name=a.mp4', '/nothing'])
@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST', 'PUT', 'OPTIONS', 'DELETE'])
def test_no_body_is_read_beyond_its_limit(server, method, path):
    before = memory(server)
    chunk = b'10000\r\n' + bytes(1 << 16) + b'\r\n'
    for headers, part in ((dict(Transfer_Encoding='chunked'), chunk), (dict(Content_Length=10**12), bytes(1 << 16))):
        sent, status = send_without_end(server, request(f'{method} {path} HTTP/1.1', **headers), part)
        assert sent < 24 * MB  # what lies in the buffers of both sides
        assert status in (b'404', b'405', b'411', b'413', b'')  # closed before the answer was looked at
    assert memory(server) - before < 16 * MB


def test_a_body_that_a_method_has_no_use_for_is_refused(server):
    for method in ('GET', 'HEAD'):
        assert server.ask('/', method, b'x')[0] == 413
        assert server.ask('/', method, b'')[0] == 200
        assert server.ask('/', method, **{'Transfer-Encoding': 'chunked'})[0] == 411


def test_slow_clients_keep_nobody_else_out(crowded):
    """More half-sent requests than there are descriptors, of several kinds."""
    logged, computed = len(crowded.said()), processor_time(crowded)
    starts = [b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n', b'', request('POST /gradio_api/run/predict HTTP/1.1',
                                                                   Content_Length=1000) + b'{"data"']
    slow = [crowded.connect() for _ in range(300)]
    try:
        for i, connection in enumerate(slow):
            with contextlib.suppress(ConnectionError):
                connection.sendall(starts[i % 3])
        began = time.monotonic()
        for _ in range(5):
            assert crowded.ask('/')[0] == 200
        assert time.monotonic() - began < 5
        time.sleep(1)
        assert processor_time(crowded) - computed < 3
        assert len(crowded.said()) - logged < 1000 and 'Traceback' not in crowded.said()
        assert len(os.listdir(f'/proc/{crowded.tool.pid}/fd')) < 250
    finally:
        for connection in slow:
            connection.close()


def test_a_flood_of_connections_leaves_room(crowded):
    """Connections come faster than the server sees them: it accepts few at a time."""
    others = []
    try:
        for _ in range(500):
            other = socket.socket()
            other.setblocking(False)
            others.append(other)
            other.connect_ex(tuple(crowded.host.split(':')[:1]) + (int(crowded.host.split(':')[1]), ))
        assert crowded.ask('/')[0] == 200
    finally:
        for other in others:
            other.close()
    assert 'Traceback' not in crowded.said() and 'system resource' not in crowded.said()


def test_clients_that_leave_keep_nobody_waiting(crowded):
    """What they asked for is not computed, and holds no file."""
    search = next(event for event in events(crowded) if len(event['data']) == 5 and event['data'][0] == 'a circle')
    body = json.dumps(search).encode()
    asks = [request('POST /gradio_api/run/predict HTTP/1.1', Content_Length=len(body),
                    Content_Type='application/json') + body, request('GET /pictures/0/1 HTTP/1.1'),
            request('GET /clips/0/1 HTTP/1.1')]
    for i in range(1200):
        with crowded.connect() as connection:
            connection.sendall(asks[i % 3])
    began = time.monotonic()
    while ask_event(crowded, body)[0] == 503:  # there may be too many requests for a moment
        time.sleep(0.05)
    assert ask_event(crowded, body)[0] == 200
    assert crowded.ask('/pictures/0/1')[0] == crowded.ask('/clips/0/1')[0] == 200
    assert time.monotonic() - began < 30  # computing all of it takes minutes
    assert len(os.listdir(f'/proc/{crowded.tool.pid}/fd')) < 100 and 'Traceback' not in crowded.said()


def test_requests_come_in_time_or_not_at_all(server):
    """A head within ten seconds, also byte by byte; uploads that stall for five lose their places."""
    opened = [server.connect() for _ in range(4)]
    stalled = [server.connect() for _ in range(4)]
    began = time.monotonic()
    try:
        for i, start in enumerate((b'', b'GET / HTT', b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ', b'P')):
            opened[i].sendall(start)
        for connection in stalled:
            connection.sendall(request('POST /nearest/0?name=a.mp4 HTTP/1.1', Content_Length=1000))
        closed = {}
        while len(closed) < len(opened) and time.monotonic() - began < 30:
            for connection in set(opened) - set(closed):
                with contextlib.suppress(ConnectionError):
                    if connection is opened[2]:
                        connection.sendall(b'x')
                    if not select.select([connection], [], [], 0)[0] or connection.recv(1 << 16):
                        continue
                closed[connection] = time.monotonic() - began
            time.sleep(0.2)
        assert len(closed) == len(opened) and all(8 < seconds < 20 for seconds in closed.values())
        for connection in stalled:
            answer = connection.recv(1 << 16)
            assert b' 400 ' in answer and b'was not received completely, or not in time' in answer
    finally:
        for connection in (*opened, *stalled):
            connection.close()


def test_uploads_that_stall_do_not_keep_others_from_their_places(server, folder, tmp_path):
    encode_video(tmp_path / 'a.mp4', 20)
    content = (tmp_path / 'a.mp4').read_bytes()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(server.connect())
            connection.sendall(request('POST /nearest/0?name=a.mp4 HTTP/1.1', Content_Length=1000) + b'x')
        deadline = time.monotonic() + 15
        for awaited in (503, 200):  # the last of the four may come to the server behind the first of these
            while (status := server.ask('/nearest/0?name=a.mp4', 'POST', content)[0]) != awaited:
                assert status in (200, 503) and time.monotonic() < deadline
                time.sleep(0.2)


def events(server):
    """Good events of the page, one of each kind."""
    config = json.loads(server.ask('/config')[2])
    kinds = {component['id']: component['type'] for component in config['components']}
    values = dict(radio='VoP', textbox='a circle', slider=3, checkbox=False, dataset=0, number=1)
    return [dict(fn_index=event['id'], data=[values[kinds[number]] for number in event['inputs']])
            for event in config['dependencies']]


def ask_event(server, body):
    return server.ask('/gradio_api/run/predict', 'POST', body, **{'Content-Type': 'application/json'})


def test_a_value_of_another_kind_is_one_line_and_nothing_in_the_log(crowded):
    logged = len(crowded.said())
    good = events(crowded)
    assert len(good) >= 5
    others = [None, True, False, 0, -1, 1.5, 1e308, 10**30, '', 'x', 'VoP\0', '\ud800', [], ['VoP'], {}, [[[]]],
              {'path': '/etc/passwd', 'meta': {'_type': 'gradio.FileData'}}, {'__type__': 'update', 'value': 'a'}]
    bodies = [b'', b'{', b'[]', b'7', b'null', b'"x"', b'\xff\xfe', b'[' * 100_000, b'{"data": NaN}',
              b'{"a":' * 50_000, b'1' * 5000, b'{"data": ["VoP"], "fn_index": ' + b'9' * 5000 + b'}']
    for event in good:
        for i in range(len(event['data'])):
            changed = [[*event['data'][:i], other, *event['data'][i + 1:]] for other in others]
            bodies += [json.dumps(dict(event, data=data)).encode() for data in changed]
        bodies += [json.dumps(dict(event, data=data)).encode() for data in (*others, event['data'] + [1], [])]
        bodies += [json.dumps(dict(event, fn_index=number)).encode() for number in (*others, 99, '0')]
        for key in ('session_hash', 'event_id', 'event_data', 'trigger_id', 'batched', 'simple_format', 'oauth_token'):
            bodies += [json.dumps({**event, key: other}).encode() for other in others]
    kinds = dict.fromkeys(range(200, 600), 0)
    for body in bodies:
        status, _, answer = ask_event(crowded, body)
        kinds[status] += 1
        assert status == 200 or (400 <= status < 500 and len(answer) < 200 and b'\n' not in answer), body[:200]
        assert status != 200 or json.loads(answer)['data'], body[:200]
    assert kinds[400] > 100 and kinds[200] > 100
    assert crowded.said()[logged:] == ''
    for event in good:
        assert ask_event(crowded, json.dumps(event).encode())[0] == 200


def test_a_hostile_hour_is_a_short_log(crowded):
    logged = len(crowded.said())
    for i in range(400):
        with crowded.connect() as connection:
            connection.sendall([b'\0\1\2\r\n\r\n', b'GET / HTTP/9.9\r\n\r\n', b'GET /\r\n\r\n' * 3,
                                request('GET / HTTP/1.1', Upgrade='websocket', Connection='Upgrade'),
                                request('POST / HTTP/1.1', Content_Length='7, 8')][i % 5])
            connection.recv(100)
    said = crowded.said()[logged:]
    assert len(said) < 4000 and 'Traceback' not in said


def test_sessions_leave_nothing_behind(crowded):
    event = next(event for event in events(crowded) if event['data'] == ['VoP'])

    def ask(count):
        for i in range(count):
            session = f'session{time.monotonic_ns()}{i}'
            assert ask_event(crowded, json.dumps(dict(event, session_hash=session)).encode())[0] == 200

    ask(100)
    before = memory(crowded)
    ask(400)
    assert memory(crowded) - before < 4 * MB
    assert 'Traceback' not in crowded.said()
