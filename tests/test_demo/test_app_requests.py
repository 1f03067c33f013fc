"""demo/app.py past the browser: requests that no browser makes, and how the command starts and ends."""
import json
import os
import re
import shutil
import signal
import socket
import time

import pytest

from tests.browser import serving
from tests.checkpoints import demo_config, write_checkpoint
from tests.tools import ROOT, run_tool
from vop_mm.search import SearchIndex


def clip_numbers(folder, name):
    """Numbers of a video's clips."""
    search_index = SearchIndex(folder / 'vop_f_p')
    starts, _ = search_index.catalogue.clips_of_file(name)
    numbers = [search_index.catalogue.number(name, start) for start, _ in starts]
    search_index.close()
    return numbers


def test_a_clip_is_served_whole_and_in_ranges(server, folder):
    number = clip_numbers(folder, 'long.mp4')[0]
    content = (folder / 'videos' / 'long.mp4').read_bytes()
    status, headers, body = server.ask(f'/clips/0/{number}')
    assert (status, body, headers['content-type']) == (200, content, 'video/mp4')
    assert headers['content-disposition'].startswith('inline') and headers['x-content-type-options'] == 'nosniff'
    status, headers, body = server.ask(f'/clips/0/{number}', Range='bytes=100-199')
    assert (status, body, headers['content-range']) == (206, content[100:200], f'bytes 100-199/{len(content)}')
    assert server.ask(f'/clips/0/{number}', Range=f'bytes={len(content)}-')[0] == 416
    for asked, expected in (('bytes=-10', content[-10:]), ('bytes=0-', content), ('bytes=5-5', content[5:6]),
                            (f'bytes=7-{10**17}', content[7:])):
        status, headers, body = server.ask(f'/clips/0/{number}', Range=asked)
        assert (status, body) == (206, expected) and headers['content-length'] == str(len(expected))
    for ignored in ('bytes=0-1,3-4', 'bytes=' + ','.join(['0-'] * 5000), 'bytes=5-2', 'bytes=-', 'pages=1-2', 'x'):
        assert server.ask(f'/clips/0/{number}', Range=ignored)[2] == content
    assert server.ask(f'/clips/0/{number}', Range='bytes=0-1', **{'If-Range': headers['etag']})[0] == 206
    assert server.ask(f'/clips/0/{number}', Range='bytes=0-1', **{'If-Range': '"another"'})[0] == 200
    status, headers, body = server.ask(f'/clips/0/{number}', 'HEAD')
    assert (status, headers['content-length'], body) == (200, str(len(content)), b'')
    status, headers, body = server.ask(f'/pictures/0/{number}')
    assert status == 200 and headers['content-type'] == 'image/jpeg' and body[:3] == b'\xff\xd8\xff'


def test_an_upload_tells_nothing_of_the_server(server, folder):
    """Neither a path, nor whether a file is there that a playlist names, nor its content."""
    secret = folder / 'videos' / 'long.mp4'
    answers = set()
    for named in (secret, folder / 'nothing.mp4', 'long.mp4'):
        for text in (f'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{named}\n#EXT-X-ENDLIST\n',
                     f"ffconcat version 1.0\nfile '{named}'\n", f'<?xml version="1.0"?><MPD>{named}</MPD>'):
            for name in ('zz.mp4', 'zz.mkv', 'zz'):
                status, _, body = server.ask(f'/nearest/0?name={name}', 'POST', text.encode())
                answers.add((status, body.replace(name.encode(), b'NAME', 1)))
    assert len(answers) == 1 and b'NAME can&#x27;t be read as a video' in answers.pop()[1]
    for start in (b'\0\0\0\x18ftypisom', b'\x1a\x45\xdf\xa3', b'RIFF\0\0\0\0AVI LIST', b'FLV\x01', b'OggS',
                  b'\0\0\x01\xba', bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c'), b'G' * 1000):
        status, _, body = server.ask('/nearest/0?name=a.mp4', 'POST', start + b'x' * 3000)
        assert status == 200 and body.count(b'vop-message') == 1 and b'data:image' not in body
        assert not any(place.encode() in body for place in ('/tmp', str(server.scratch), 'page.tmp', 'tmp'))
    assert 'Traceback' not in server.said()


def test_answers_name_no_folder_of_the_server(server, folder):
    config = json.loads(server.ask('/config')[2])
    number = next(d['id'] for d in config['dependencies'] if len(d['inputs']) == 1 and len(d['outputs']) == 2)
    status, _, body = ask_event(server, dict(data=['VoP^F+P'], fn_index=number))
    assert status == 200 and b'vop-status' in body and b'>videos<' in body
    for answer in (body, server.ask('/config')[2], server.ask('/')[2]):
        assert not any(place.encode() in answer for place in (str(folder), str(ROOT), '/tmp/', str(server.scratch)))


def test_only_files_of_the_index_are_served(server, folder, small_demo):
    secret = folder / 'secret.mp4'
    shutil.copy(folder / 'videos' / 'long.mp4', secret)
    paths = [*map(str, (secret, ROOT / 'README.md', folder / 'videos' / 'long.mp4', folder / 'vop_f_p' / 'catalogue.db',
                        small_demo / 'test.json', '/etc/passwd', '/proc/self/environ'))]
    asked = ['/clips/0/99999', '/clips/2/1', '/clips/0/-1', f'/clips/0/{2**64}', '/clips/0/1/../../etc/passwd',
             '/clips/0/..%2f..%2fsecret.mp4', '/clips/0/%2e%2e/%2e%2e/secret.mp4', '/pictures/0/99999', '/clips/0/',
             '/static/../../README.md', '/assets/%2e%2e/%2e%2e/app.py', '/static/..%2f..%2f..%2fblocks.py',
             '/gradio_api/custom_component/x/client/component/index.js', '/docs', '/openapi.json',
             '/monitoring/summary']
    for path in paths:
        asked += [path, f'/file={path}', f'/gradio_api/file={path}', f'/gradio_api/file/{path}',
                  f'/gradio_api/file=videos/../{path.lstrip("/")}', f'/gradio_api/file=%2e%2e/%2e%2e{path}',
                  f'/gradio_api/file={path.replace("/", "%2f")}', f'/static/../../../../../../../..{path}',
                  f'/gradio_api/proxy=file://{path}', f'/gradio_api/stream/{path}', f'/clips/0/{path}',
                  f'/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{path}']
    asked += [f'/gradio_api/proxy={server.url}/', f'/gradio_api/file={server.url}/theme.css']
    for path in asked:
        status, _, body = server.ask(path)
        assert status in (400, 404) and len(body) < 200, (path, status, body[:300])
    assert server.ask('/gradio_api/file=' + paths[0], 'HEAD')[0] == 404


@pytest.mark.parametrize('path', ['/clips/0/{}', '/clips/{}/1', '/pictures/0/{}', '/nearest/{}', '/static/{}',
                                  '/assets/{}.js', '/svelte/{}', '/gradio_api/{}', '/{}'])
@pytest.mark.parametrize('length', [180, 300, 5000])
def test_no_path_is_too_long(server, path, length):
    method = 'POST' if 'nearest' in path else 'GET'
    status, headers, _ = server.ask(path.format('9' * length), method, b'' if method == 'POST' else None)
    assert status == 404 and headers['x-content-type-options'] == 'nosniff'
    assert '99999' not in server.said()


def test_every_answer_has_the_headers(server):
    for path, method, headers, expected in (
            ('/', 'GET', {}, 200), ('/nothing', 'GET', {}, 404), ('/', 'PUT', {}, 405), ('/', 'POST', {}, 411),
            ('/', 'GET', dict(Host='evil.example'), 400), ('/', 'GET', dict(Origin='null'), 403),
            ('/clips/0/999999', 'GET', {}, 404), ('/page.js', 'GET', {}, 200), ('/config', 'GET', {}, 200)):
        status, found, _ = server.ask(path, method, **headers)
        assert status == expected and 'server' not in found
        assert found['x-content-type-options'] == 'nosniff' and found['referrer-policy'] == 'same-origin'
        assert "frame-ancestors 'self'" in found['content-security-policy']
        assert ("'sha256-" in found['content-security-policy']) == (status == 200 and path == '/')


def test_a_file_that_has_changed_is_not_served(server, folder):
    """The index knows what it lists; a link that points elsewhere by now is something else."""
    path = folder / 'videos' / 'old.avi'
    number, kept = clip_numbers(folder, 'old.avi')[0], path.with_suffix('.kept')
    assert server.ask(f'/clips/0/{number}')[0] == 200
    path.rename(kept)
    try:
        assert server.ask(f'/clips/0/{number}')[0] == 404
        path.symlink_to('/etc/passwd')
        for kind in ('clips', 'pictures'):
            status, _, body = server.ask(f'/{kind}/0/{number}')
            assert status == 404 and b'has changed' in body
    finally:
        kept.rename(path)
    assert server.ask(f'/clips/0/{number}')[0] == 200


def search_event(server, query):
    """What the browser sends for a search."""
    config = json.loads(server.ask('/config')[2])
    event = next(d['id'] for d in config['dependencies'] if len(d['inputs']) == 5)
    return dict(data=[query, 'VoP^F+P', 3, False, 1], fn_index=event, session_hash='abc')


def ask_event(server, event):
    return server.ask('/gradio_api/run/predict', 'POST', json.dumps(event).encode(),
                      **{'Content-Type': 'application/json'})


def test_events_take_plain_values_only(server, folder):
    """Gradio copies files and fetches addresses that stand in values of events."""
    good = search_event(server, 'a circle')
    status, _, body = ask_event(server, good)
    assert status == 200 and b'vop-cards' in body
    for path in ('/etc/passwd', 'http://127.0.0.1:1/x'):
        file = dict(path=path, meta=dict(_type='gradio.FileData'))
        for value in (file, [file]):
            bad = dict(good, data=[value, 'VoP^F+P', 3, False, 1])
            assert ask_event(server, bad)[0] == 400
    for method, path in (('POST', '/gradio_api/upload'), ('POST', '/gradio_api/queue/join'), ('POST', '/clips/0/1'),
                         ('POST', '/gradio_api/call/search'), ('POST', '/gradio_api/process_recording')):
        assert server.ask(path, method, b'{}')[0] in (404, 405), path


def test_an_index_in_milvus_is_searched(server, folder):
    pytest.importorskip('milvus_lite')
    done = run_tool('tools/index_videos.py', 'videos', 'milvus', '--config', 'vop_f_p.py', '--checkpoint',
                    'vop_f_p.pth', '--window', '4', '--stride', '1', '--backend', 'milvus', cwd=folder)
    assert done.returncode == 0, done.stderr
    found = []
    with serving('milvus', cwd=folder) as other:
        for one in (server, other):
            status, _, body = ask_event(one, search_event(one, 'a circle'))
            assert status == 200
            found.append(re.findall(r'vop-(?:score|name)[^>]*>([^<]+)<', json.loads(body)['data'][0]))
    assert found[0] == found[1] and len(found[0]) == 6


def test_requests_that_are_too_large_or_from_elsewhere_are_refused(server):
    status, _, body = server.ask('/nearest/0?name=a.mp4', 'POST', **{'Content-Length': str(2**20 + 1)})
    assert status == 413 and b'a.mp4 is too large: the limit is 1 MB' in body
    assert server.ask('/gradio_api/run/predict', 'POST', **{'Content-Length': str(10**9)})[0] == 413
    assert server.ask('/nearest/0', 'POST', **{'Transfer-Encoding': 'chunked'})[0] == 411
    assert server.ask('/nearest/7', 'POST', b'x')[0] == 404
    assert server.ask('/nearest/0', 'POST', b'x', **{'Sec-Fetch-Site': 'cross-site'})[0] == 403
    assert server.ask('/', Host='evil.example')[0] == 400
    status, headers, body = server.ask('/', Host=server.host)
    assert status == 200 and "default-src 'self'" in headers['content-security-policy']
    assert server.host.startswith('127.0.0.1:')
    linked = re.findall(r'(?:src|href)="(https?://[^"]+)', body.decode())
    assert not [link for link in linked if not link.startswith(f'{server.url}/')]


def test_an_upload_that_ends_early_leaves_nothing(server):
    before, deadline = set(server.scratch.iterdir()), time.time() + 30
    host, port = server.host.split(':')
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b'POST /nearest/0?name=a.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n'
                           + bytes(300_000))
        while set(server.scratch.iterdir()) == before and time.time() < deadline:
            time.sleep(0.02)
        assert set(server.scratch.iterdir()) > before
    while set(server.scratch.iterdir()) != before and time.time() < deadline:
        time.sleep(0.02)
    assert set(server.scratch.iterdir()) == before


# -- the command ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('args, message', [
    (('nothing', ), 'no search index: nothing'),
    (('a=nothing', ), 'no search index: nothing'),
    (('videos', ), 'no search index: videos'),
    (('vop', 'vop_f_p', 'VoP=vop'), 'needs its own name'),
    (('vop', '--texts', 'nothing.txt'), 'nothing.txt'),
    (('vop', '--texts', 'empty.txt'), 'empty.txt contains 0 texts'),
    (('vop', '--texts', 'vop.pth'), 'vop.pth is not a text file'),
    (('vop', '--timeout', '0'), 'must be more than 0'),
    (('vop', '--port', '99999'), 'cannot listen on 127.0.0.1, port 99999'),
    (('vop', '--host', '203.0.113.9'), 'cannot listen on 203.0.113.9'),
    (('other', ), 'was made with other settings: prompts'),
    (('gone', ), 'not found'),
])
def test_bad_input_is_one_line(folder, args, message):
    (folder / 'empty.txt').write_text('\n')
    for name in ('other', 'gone'):  # indexes whose checkpoint is another one now, or is gone
        if not (folder / name).exists() and name in args:
            shutil.copytree(folder / 'vop', folder / name)
            _set_checkpoint(folder / name, folder / ('moved.pth' if name == 'gone' else 'again.pth'))
            write_checkpoint(folder / 'again.pth', demo_config('vop/vop_demo.py'), 7)
    done = run_tool('demo/app.py', *args, cwd=folder)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(errors) == 1 and message in errors[0], done.stderr
    assert 'Traceback' not in done.stderr and 'search page' not in done.stdout


def _set_checkpoint(index, path):
    search_index = SearchIndex(index)
    with search_index.catalogue.transaction():
        search_index.catalogue.set('source', dict(search_index.catalogue.get('source'), checkpoint=str(path)))
    search_index.close()


def test_without_an_index_it_takes_the_quickstarts(folder, tmp_path):
    app = tmp_path / 'demo' / 'app.py'
    app.parent.mkdir()
    shutil.copy(ROOT / 'demo' / 'app.py', app)
    done = run_tool(str(app), cwd=tmp_path)
    assert done.returncode == 1 and 'bash tools/quickstart.sh' in done.stderr and 'Traceback' not in done.stderr
    index = tmp_path / 'work_dirs' / 'quickstart_quick' / 'index'
    index.parent.mkdir(parents=True)
    shutil.copytree(folder / 'vop', index)
    with serving(cwd=tmp_path, app=str(app)) as server:
        assert b'Text-video search' in server.ask('/')[2]
        os.kill(server.tool.pid, signal.SIGTERM)
        assert server.tool.wait(30) == 143 and not server.scratch.exists()
