"""A reverse proxy as people put before a server: under a path, and where wanted with TLS."""
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HEAD_END = b'\r\n\r\n'


@contextmanager
def reverse_proxy(upstream: str, prefix: str, keep_prefix: bool, keep_host: bool,
                  tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Pass requests on, each on a connection of its own.

    Args:
        upstream (str): Host and port of the server.
        prefix (str): Path that belongs to the server; others are answered with 404.
        keep_prefix (bool): Pass it on, or take it off.
        keep_host (bool): Pass the name on by which the proxy was called, or the server's own, and that one beside it.
        tls (ssl.SSLContext, optional): For the proxy's own side.

    Yields:
        int: The proxy's port.
    """
    def rewrite(head: bytes) -> bytes | None:
        line, *headers = head.split(b'\r\n')
        method, target, version = line.split(b' ')
        if not target.startswith(f'{prefix}/'.encode()):
            return None
        headers = [header for header in headers if not re.match(rb'(?i)connection:', header)]
        if not keep_host:
            called = next(header for header in headers if re.match(rb'(?i)host:', header))
            headers.remove(called)
            headers += [f'Host: {upstream}'.encode(), b'X-Forwarded-Host:' + called.partition(b':')[2]]
        headers += [b'X-Forwarded-For: 203.0.113.9', b'X-Forwarded-Proto: ' + (b'https' if tls else b'http'),
                    b'Connection: close']
        return b'\r\n'.join([b' '.join([method, target if keep_prefix else target[len(prefix):], version]), *headers])

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if tls is not None:
                client = tls.wrap_socket(client, server_side=True)
            received = b''
            while _HEAD_END not in received:
                part = client.recv(1 << 16)
                if not part:
                    return
                received += part
            head, _, body = received.partition(_HEAD_END)
            head = rewrite(head)
            if head is None:
                client.sendall(b'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
                return
            host, port = upstream.split(':')
            with socket.create_connection((host, int(port))) as server:
                server.sendall(head + _HEAD_END + body)
                threading.Thread(target=pump, args=(client, server), daemon=True).start()
                pump(server, client)
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while part := source.recv(1 << 16):
                target.sendall(part)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=serve, args=(client, ), daemon=True).start()

    with socket.create_server(('127.0.0.1', 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
