"""A real S3 server on loopback (moto)."""
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_server(bucket: str = 'bucket') -> Iterator[tuple[dict, object]]:
    """A server with an empty bucket, within the ``with``; tests skip where moto or s3fs is not installed.

    Yields:
        tuple[dict, object]: Options for fsspec, and the file system to write with.
    """
    s3fs = pytest.importorskip('s3fs')
    moto = pytest.importorskip('moto.server')
    server = moto.ThreadedMotoServer('127.0.0.1', 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = dict(endpoint_url=f'http://{host}:{port}', key='user', secret='hush')
        # what it holds is the process's, and may be from a server before this one
        urllib.request.urlopen(f'http://{host}:{port}/moto-api/reset', b'', timeout=10).close()
        system = s3fs.S3FileSystem(**options, use_listings_cache=False, skip_instance_cache=True)
        system.mkdir(bucket)
        yield options, system
    finally:
        server.stop()
