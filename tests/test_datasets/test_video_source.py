import hashlib
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mmengine.fileio import BaseStorageBackend, register_backend

from tests.s3 import s3_server
from tests.web import web_server
from vop_mm.datasets import AnnotationError, VideoDecodeError
from vop_mm.datasets.video_source import VideoSource

pytestmark = pytest.mark.usefixtures('place')


@register_backend('of_a_test', force=True)
class OfATest(BaseStorageBackend):
    """Reads from a dict."""
    files = {'videos/a.mp4': b'a', 'videos/sub/b.mp4': b'bb'}

    def __init__(self, password: str) -> None:
        self.password = password

    def get(self, filepath: str) -> bytes:
        if filepath not in self.files:
            raise RuntimeError(f'nothing at remote://me:{self.password}@host/{filepath}')
        return self.files[filepath]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        return self.get(filepath).decode(encoding)

    def list_dir_or_file(self, dir_path: str, list_dir: bool, recursive: bool):
        assert not list_dir and recursive
        return (path.removeprefix(f'{dir_path}/') for path in self.files)


@pytest.fixture
def web():
    with web_server() as server:
        server.files.update({'/v/a.mp4': b'aaa', '/v/sub/b c.mp4': b'bbbb'})
        yield server


@pytest.fixture(scope='module')
def s3():
    with s3_server() as (options, system):
        for name, content in {'v/a.mp4': b'aaa', 'v/sub/b c?.mp4': b'bbbb', 'v2/x.mp4': b'x'}.items():
            system.pipe_file(f'bucket/{name}', content)
        yield options, system


def content(source: VideoSource, name: str, expected=None) -> bytes:
    with source.local(name, expected) as path:
        return Path(path).read_bytes()


def error(source: VideoSource, name: str, expected=None) -> str:
    with pytest.raises(VideoDecodeError) as caught:
        content(source, name, expected)
    assert '\n' not in str(caught.value) and 'hush' not in str(caught.value)
    return str(caught.value)


# -- folders ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('backend_args', [None, dict(backend='local'), dict(backend='atomic')])
def test_a_folder_is_left_where_it_is(tmp_path, backend_args):
    (tmp_path / 'a.mp4').write_bytes(b'aaa')
    source = VideoSource(tmp_path, backend_args)
    assert source.is_local and source.shown('a.mp4') == f'{tmp_path}/a.mp4'
    with source.local('a.mp4') as path:
        assert path == f'{tmp_path}/a.mp4'
    assert source.stat('a.mp4') == (3, str(os.stat(tmp_path / 'a.mp4').st_mtime_ns))
    with pytest.raises(VideoDecodeError, match=r'gone\.mp4: No such file'):
        source.stat('gone.mp4')
    for name in ('../a.mp4', '/etc/passwd', ''):
        with pytest.raises(ValueError, match='leads out'):
            source.local(name)
    assert VideoSource('').shown('/videos/a.mp4') == '/videos/a.mp4'  # no folder was named: paths of their own


# -- web servers ------------------------------------------------------------------------------------------------------
def test_a_web_server(web):
    source = VideoSource(f'{web.url}/v')
    assert not source.is_local and content(source, 'a.mp4') == b'aaa' and content(source, 'sub/b c.mp4') == b'bbbb'
    assert source.stat('a.mp4') == (3, f'"{hashlib.md5(b"aaa").hexdigest()}"')
    assert content(source, 'a.mp4', source.stat('a.mp4')) == b'aaa'
    web.files['/v/a.mp4'] = b'bbb'
    stat = source.stat('a.mp4')
    web.files['/v/a.mp4'] = b'ccc'
    assert 'the file has changed: 3 bytes' in error(source, 'a.mp4', stat)
    assert error(source, 'gone.mp4') == f"can't decode {web.url}/v/gone.mp4: HTTP 404 Not Found"
    with pytest.raises(ValueError, match='cannot be listed: list them in a manifest'):
        source.list()


@pytest.mark.parametrize('name', ['../secret', 'http://127.0.0.1:1/a.mp4', '//127.0.0.1:1/a', 's3://b/a', '/v/a.mp4'])
def test_an_annotation_names_no_addresses(web, name):
    source = VideoSource(f'{web.url}/v')
    for call in (source.local, source.shown, source.stat):
        with pytest.raises(ValueError):
            call(name)
    assert web.requests == []


def test_secrets_of_an_address_and_headers(web):
    web.password = 'user:hush'
    root = web.url.replace('://', '://user:hush@') + '/v?token=hush'
    source = VideoSource(root, dict(headers={'X-Key': 'hush'}))
    assert content(source, 'a.mp4') == b'aaa'
    assert web.requests[0][0] == '/v/a.mp4?token=hush' and web.requests[0][1]['x-key'] == 'hush'
    assert str(source) == f'{web.url}/v?token=' and source.shown('a.mp4') == f'{web.url}/v/a.mp4?token='
    assert 'HTTP 404' in error(source, 'gone.mp4')


def test_a_file_that_is_too_large(web, monkeypatch):
    assert 'b%20c.mp4: 4 bytes are too many to download: the limit is 3 (VOP_MM_MAX_FETCHED)' in error(
        VideoSource(f'{web.url}/v', cache_bytes=3), 'sub/b c.mp4')
    monkeypatch.setenv('VOP_MM_MAX_FETCHED', '3')
    web.chunked = True  # the server doesn't say
    source = VideoSource(f'{web.url}/v')
    assert 'larger than the limit of 3 bytes' in error(source, 'sub/b c.mp4') and content(source, 'a.mp4') == b'aaa'


def test_errors_of_a_decoder_name_the_address(web):
    source = VideoSource(f'{web.url.replace("://", "://u:hush@")}/v')
    with pytest.raises(VideoDecodeError) as caught, source.local('a.mp4') as path:
        raise VideoDecodeError(path, f'{path} is damaged')
    shown = f'{web.url}/v/a.mp4'
    assert str(caught.value) == f"can't decode {shown}: {shown} is damaged" and caught.value.path == shown


# -- object stores ----------------------------------------------------------------------------------------------------
def test_s3(s3):
    options, system = s3
    source = VideoSource('s3://bucket/v', options)
    assert content(source, 'a.mp4') == b'aaa' and content(source, 'sub/b c?.mp4') == b'bbbb'
    assert source.list() == {name: (len(data), f'"{hashlib.md5(data).hexdigest()}"')
                             for name, data in {'a.mp4': b'aaa', 'sub/b c?.mp4': b'bbbb'}.items()}
    assert source.stat('a.mp4') == source.list()['a.mp4'] and str(source) == 's3://bucket/v'
    stat = source.stat('a.mp4')
    system.pipe_file('bucket/v/a.mp4', b'ccc')
    assert source.stat('a.mp4') != stat and 'the file has changed' in error(source, 'a.mp4', stat)
    system.pipe_file('bucket/v/a.mp4', b'aaa')
    assert error(source, 'gone.mp4') == "can't decode s3://bucket/v/gone.mp4: no such file"
    assert 'a folder, not a file' in error(source, 'sub')
    assert 'too many to download' in error(VideoSource('s3://bucket/v', options, cache_bytes=2), 'a.mp4')


def test_a_large_object_whole_and_replaced_meanwhile(s3):
    options, system = s3
    data = os.urandom(20_000_000)  # several requests
    system.pipe_file('bucket/large/a.mp4', data)
    source = VideoSource('s3://bucket/large', options)
    assert content(source, 'a.mp4') == data
    reader, address = source._find('a.mp4')
    with reader.open(address) as (stat, chunks):
        assert stat.size == len(data) and next(chunks)
        system.pipe_file('bucket/large/a.mp4', bytes(20_000_000))
        with pytest.raises(VideoDecodeError, match=r's3://bucket/large/a\.mp4'):  # no mixture of the two
            list(chunks)


def test_s3_without_permission_or_server(s3):
    options, _ = s3
    assert 'bucket2' in error(VideoSource('s3://bucket2', options), 'a.mp4')
    with web_server() as web:
        gone = web.url
    source = VideoSource('s3://bucket', dict(options, endpoint_url=gone, config_kwargs=dict(retries=dict(
        max_attempts=0))))
    assert 's3://bucket/a.mp4' in error(source, 'a.mp4')
    with pytest.raises(VideoDecodeError, match=r"can't decode s3://bucket: "):
        source.list()


def _read_in_child(source, queue):
    queue.put(content(source, 'a.mp4'))


@pytest.mark.parametrize('kind', ['web', 's3'])
def test_workers_and_threads(kind, request):
    if kind == 'web':
        source = VideoSource(request.getfixturevalue('web').url + '/v')
    else:
        source = VideoSource('s3://bucket/v', request.getfixturevalue('s3')[0])
    assert content(source, 'a.mp4') == b'aaa'  # with a connection that is open
    assert content(pickle.loads(pickle.dumps(source)), 'a.mp4') == b'aaa'
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    for _ in range(2):
        process = context.Process(target=_read_in_child, args=(source, queue))
        process.start()
        assert queue.get(timeout=30) == b'aaa'
        process.join(10)
        assert process.exitcode == 0
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: content(source, 'a.mp4'), range(12))) == [b'aaa'] * 12


def test_whatever_fsspec_knows():
    import fsspec
    fsspec.filesystem('memory').pipe_file('/v/a.mp4', b'aaa')
    source = VideoSource('memory://v')
    assert content(source, 'a.mp4') == b'aaa' and source.list()['a.mp4'].size == 3
    with pytest.raises(ValueError, match='nosuch'):
        VideoSource('nosuch://v')
    with pytest.raises(ValueError, match='not an address'):
        VideoSource('simplecache::s3://v')


# -- MMEngine ---------------------------------------------------------------------------------------------------------
def test_a_backend_of_mmengine():
    source = VideoSource('videos', dict(backend='of_a_test', password='hush'))
    assert content(pickle.loads(pickle.dumps(source)), 'a.mp4') == b'a' and not source.is_local
    assert source.list() == {'a.mp4': (None, None), 'sub/b.mp4': (None, None)} and source.stat('a.mp4') == (None, None)
    assert error(source, 'gone.mp4') == \
        "can't decode videos/gone.mp4: RuntimeError: nothing at remote://host/videos/gone.mp4"
    assert '2 bytes are too many' in error(
        VideoSource('videos', dict(backend='of_a_test', password='x'), cache_bytes=1), 'sub/b.mp4')
    for name in ('../a', 'http://127.0.0.1/a', '/a'):
        with pytest.raises(ValueError):
            source.local(name)


@pytest.mark.parametrize('root, options, message', [
    ('videos', dict(anon=True), 'name no backend'), ('http://h/v', dict(key='hush'), 'are headers'),
])
def test_options_that_nobody_takes(root, options, message):
    with pytest.raises(ValueError, match=message):
        VideoSource(root, options)


# -- manifests --------------------------------------------------------------------------------------------------------
def manifest(folder: Path, *entries: dict) -> str:
    path = folder / 'videos.jsonl'
    path.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    return str(path)


def test_a_manifest_of_several_places(web, s3, tmp_path):
    options, _ = s3
    (tmp_path / 'c.mp4').write_bytes(b'local')
    url = f'{web.url}/v/a.mp4'
    source = VideoSource(manifest(
        tmp_path, dict(url=url, size=3, etag=hashlib.md5(b'aaa').hexdigest()), dict(url='c.mp4'),
        dict(url='s3://bucket/v/sub/b c?.mp4', start=1, end=2)), options)
    names = [url, 'c.mp4', 's3://bucket/v/sub/b c?.mp4#t=1,2']
    assert list(source.list()) == names and [content(source, name) for name in names] == [b'aaa', b'local', b'bbbb']
    assert source.window(names[2]) == (1, 2) and source.window(url) == (None, None)
    before = len(web.requests)
    assert source.stat(url) == (3, hashlib.md5(b'aaa').hexdigest()) and len(web.requests) == before
    web.files['/v/a.mp4'] = b'bbb'
    assert 'the file has changed: 3 bytes' in error(source, url)


def test_names_of_an_annotation_in_a_manifest(web, tmp_path):
    source = VideoSource(manifest(
        tmp_path, dict(url=f'{web.url}/v/a.mp4?token=hush'), dict(url=f'{web.url}/w/a.mp4'),
        dict(url=f'{web.url}/v/sub/b%20c.mp4', end=3), dict(url=f'{web.url}/v/d.mp4', end=3),
        dict(url=f'{web.url}/v/d.mp4', start=3)))
    assert content(source, 'v/a.mp4') == b'aaa' and content(source, 'sub/b%20c.mp4') == b'bbbb'
    assert web.requests[0][0] == '/v/a.mp4?token=hush' and source.shown('v/a.mp4') == f'{web.url}/v/a.mp4?token='
    assert source.window('b%20c.mp4') == (None, 3) and source.window('d.mp4#t=3') == (3, None)
    for name in ('a.mp4', 'd.mp4', 'mp4', 'gone.mp4', f'{web.url}/v/other.mp4', '../a.mp4', '/etc/passwd'):
        with pytest.raises(ValueError, match='is not one video of the manifest'):
            source.local(name)
    pickle.loads(pickle.dumps(source)).local('v/a.mp4')


def test_secrets_are_not_sent_to_all_servers_of_a_manifest(tmp_path):
    path = manifest(tmp_path, dict(url='http://h/a.mp4'), dict(url='s3://b/a.mp4'), dict(url='gs://b/a.mp4'))
    with pytest.raises(ValueError, match='headers are for a single server'):
        VideoSource(path, dict(headers={'X-Key': 'hush'}))
    with pytest.raises(ValueError, match=r"of one kind of store, and .* names \['gs', 'http', 's3'\]"):
        VideoSource(path, dict(key='hush'))
    with pytest.raises(AnnotationError, match='line 1: not JSON'):
        (tmp_path / 'videos.jsonl').write_text('x')
        VideoSource(path)
