"""The page among others: pages of other sites, other names of its host, indexes of other people, a reverse proxy."""
import contextlib
import http.server
import json
import os
import shutil
import sqlite3
import ssl
import subprocess
import threading
import time

import pytest

from tests.browser import chromium, click_search, serving
from tests.proxy import reverse_proxy

RULES = 'MAP lan.example 127.0.0.2, MAP rebound.example 127.0.0.2, MAP attacker.example 127.0.0.1, ' \
        'MAP search.example 127.0.0.1'


@pytest.fixture(scope='module')
def browser():
    with chromium(f'--host-resolver-rules={RULES}') as browser:
        yield browser


@pytest.fixture(scope='module')
def lan(folder):
    """A server at an address that isn't loopback's own, with a name."""
    with serving('vop', '--follow-links', '--host', '127.0.0.2', '--allow-host', 'lan.example',
                 '--allow-host', 'front.example:8443', cwd=folder) as server:
        yield server


# -- requests ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('host, status', [
    ('127.0.0.2', 200), ('127.0.0.2:{port}', 200), ('lan.example', 200), ('LAN.example:{port}', 200),
    ('lan.example.', 200), ('localhost:9', 200), ('[::1]:7860', 200), ('127.0.0.1', 200), ('front.example', 200),
    ('evil.example', 400), ('127.0.0.3', 400), ('xlan.example', 400), ('lan.example.evil.example', 400),
    ('lan.example@evil.example', 400), ('evil.example#lan.example', 400), ('', 400), ('lan.example:x', 400),
    ('0.0.0.0', 400), ('*', 400), ('evil.example, lan.example', 400),
])
def test_a_server_answers_to_its_own_names_only(lan, host, status):
    host = host.format(port=lan.host.split(':')[1])
    assert lan.ask('/', Host=host)[0] == status
    assert lan.ask('/nearest/7', 'POST', b'x', Host=host)[0] == (404 if status == 200 else 400)
    forwarded = {'X-Forwarded-Host': host} if host else {}
    assert lan.ask('/', Host='evil.example', **forwarded)[0] == 400
    assert lan.ask('/', Host='lan.example', **forwarded)[0] == (status if host else 200)


def test_without_a_name_there_is_no_answer(lan):
    with lan.connect() as connection:
        connection.sendall(b'GET / HTTP/1.0\r\n\r\n')
        assert b' 400 ' in connection.recv(1000)


@pytest.mark.parametrize('origin, host, status', [
    (None, 'lan.example', 404),  # no browser
    ('http://lan.example', 'lan.example', 404), ('https://lan.example', 'lan.example', 404),
    ('http://lan.example:80', 'lan.example', 404), ('https://lan.example', 'lan.example:443', 404),
    ('http://lan.example:7', 'lan.example:7', 404), ('http://[::1]:7', '[::1]:7', 404),
    ('https://front.example:8443', 'front.example', 404),  # what --allow-host says
    ('https://lan.example', '127.0.0.2:{port}', 404),
    ('http://front.example', 'lan.example', 403), ('http://lan.example:7', 'lan.example', 403),
    ('http://lan.example:7', 'lan.example:8', 403), ('http://attacker.example', 'lan.example', 403),
    ('null', 'lan.example', 403), ('', 'lan.example', 403), ('lan.example', 'lan.example', 403),
    ('http://lan.example.attacker.example', 'lan.example', 403), ('http://lan.example@attacker.example', 'lan.example',
                                                                  403),
    ('file://lan.example', 'lan.example', 403), ('http://lan.example/', 'lan.example', 403),
    ('http://127.0.0.1:1', 'lan.example', 403),
])
def test_the_page_that_sends_is_the_server_own(lan, origin, host, status):
    headers = dict(Host=host.format(port=lan.host.split(':')[1]), **({} if origin is None else {'Origin': origin}))
    assert lan.ask('/nearest/7', 'POST', b'x', **headers)[0] == status
    answered = lan.ask('/config', **headers)
    assert answered[0] == (200 if status == 404 else 403)
    if status == 403:
        assert 'access-control-allow-origin' not in answered[1] and len(answered[2]) < 100
    for site in ('cross-site', 'same-site'):
        assert lan.ask('/nearest/7', 'POST', b'x', **headers, **{'Sec-Fetch-Site': site})[0] == 403


def test_other_sites_may_link_here_and_take_nothing(lan):
    followed = {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}
    status, headers, _ = lan.ask('/', **followed)
    assert status == 200 and headers['cross-origin-resource-policy'] == 'same-origin'
    assert lan.ask('/nearest/7', 'POST', b'x', **followed)[0] == 403
    for path in ('/clips/0/1', '/pictures/0/1', '/config', '/theme.css'):
        for mode in ('no-cors', 'cors'):
            assert lan.ask(path, **{'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': mode})[0] == 403
        assert lan.ask(path, **{'Sec-Fetch-Site': 'same-origin', 'Sec-Fetch-Mode': 'no-cors'})[0] == 200


def test_what_a_proxy_says_reaches_nothing_else(server):
    body = server.ask('/', **{'X-Forwarded-Host': 'localhost', 'X-Gradio-Server': 'http://evil.example/',
                              'Forwarded': 'host=evil.example'})[2]
    assert b'evil.example' not in body and b'"root":"http://localhost"' in body.replace(b' ', b'')


@pytest.mark.parametrize('args, message', [
    (('--allow-host', 'http://a.example'), 'is not a host name'),
    (('--allow-host', '*'), 'is not a host name'),
    (('--allow-host', 'a.example:99999'), 'is not a host name'),
    (('--allow-host', 'a.example:0'), 'is not a host name'),
    (('--root-path', '/a b'), 'is not a path like /search'),
])
def test_a_wrong_name_is_one_line(folder, args, message):
    from tests.tools import run_tool
    done = run_tool('demo/app.py', 'vop', *args, '--port', '0', cwd=folder)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(errors) == 1 and message in errors[0], done.stderr
    assert 'Traceback' not in done.stderr


# -- in a browser -----------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def site(content):
    """A site of somebody else's; its port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Type', 'text/html')
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd.server_address[1]
        httpd.shutdown()


def test_another_site_can_not_post_in_a_users_browser(browser, lan):
    port = lan.host.split(':')[1]
    content = f"""<script>
        fetch('http://lan.example:{port}/nearest/0?name=csrf.mp4', {{method: 'POST', mode: 'no-cors', body: 'x'}})
            .then((answer) => {{ document.title = 'sent'; }}, (error) => {{ document.title = 'failed'; }});
        </script><form id=f action='http://lan.example:{port}/nearest/0?name=form.mp4' method=post enctype='text/plain'>
        <input name=a value=b></form><img src='http://lan.example:{port}/pictures/0/1' onload='window.seen = 1'>"""
    with site(content) as attacker:
        page, statuses = browser.new_page(), []
        page.on('response', lambda answer: statuses.append(answer.status) if 'nearest' in answer.url else None)
        page.goto(f'http://attacker.example:{attacker}/')
        page.wait_for_function('["sent", "failed"].includes(document.title)')
        assert page.evaluate('window.seen') is None
        page.evaluate('document.getElementById("f").submit()')
        page.wait_for_url('**/nearest/0*')
        assert 200 not in statuses and statuses[-1:] == [403]
        assert page.inner_text('body') == 'requests from other sites are refused'
        page.close()


def test_another_name_that_leads_here_reads_nothing(browser, lan):
    port, page = lan.host.split(':')[1], browser.new_page()
    assert page.goto(f'http://lan.example:{port}/config').status == 200
    for path in ('/', '/config', '/clips/0/1', '/theme.css'):
        assert page.goto(f'http://rebound.example:{port}{path}').status == 400
        assert 'unknown host name' in page.inner_text('body')
    page.close()


@pytest.fixture(scope='module')
def shared(folder, tmp_path_factory):
    """A server, and its index, which its author may change."""
    index = tmp_path_factory.mktemp('shared') / 'vop'
    shutil.copytree(folder / 'vop', index)
    with serving('vop', '--follow-links', cwd=index.parent) as server:
        yield server, index


def change_index(index, original, changes):
    """Change an index in a file of its own that takes its place."""
    shutil.copy(original / 'catalogue.db', index / 'new.db')
    with contextlib.closing(sqlite3.connect(index / 'new.db')) as db, db:
        for change in changes:
            db.execute(*change)
    os.replace(index / 'new.db', index / 'catalogue.db')


MARK = '<img src=x onerror=window.hacked=1>'
EVIL_INDEXES = dict(
    view=[('ALTER TABLE clips RENAME TO real', ),
          ("""CREATE VIEW clips AS SELECT id || '" onloadstart="window.hacked=1" id="mark' AS id, file, start, stop,
              vector FROM real UNION ALL SELECT * FROM real""", )],
    texts=[('UPDATE files SET hash = ?', ('"><i id=mk>', )),
           ('UPDATE files SET error = ? WHERE error IS NOT NULL', (MARK, )),
           *[(f"UPDATE meta SET value = json_set(value, '$.{key}', ?) WHERE key = 'settings'", (MARK, ))
             for key in ('window', 'stride')],
           ("UPDATE meta SET value = ? WHERE key = 'videos'", (json.dumps(f'/{MARK}'), ))],
    name=[("UPDATE files SET path = ? WHERE path = 'long.mp4'", (f'{MARK}<b id=mark>.mp4'.encode(), ))],
)


@pytest.mark.parametrize('kind', EVIL_INDEXES)
def test_an_index_runs_no_script_in_the_page(browser, shared, folder, kind):
    server, index = shared
    change_index(index, folder / 'vop', [])
    page, sent = browser.new_page(), []
    page.on('request', lambda request: sent.append(request.url))
    page.goto(server.url)
    page.wait_for_selector('#vop-summary .vop-summary')
    change_index(index, folder / 'vop', EVIL_INDEXES[kind])
    page.fill('#vop-query textarea', 'a white square')
    click_search(page)
    page.wait_for_selector('#vop-results :is(.vop-cards, .vop-message)')
    page.get_by_role('tab', name='Index').click()
    page.wait_for_selector('#vop-index :is(table, .vop-message)')
    time.sleep(0.3)  # for what a picture that isn't there would do
    assert page.evaluate('window.hacked') is None and page.locator('#mark, #mk, img[src="x"]').count() == 0
    assert not [url for url in sent if url.endswith('/x')]
    assert 'Traceback' not in server.said()
    page.close()


@pytest.mark.parametrize('path, videos', [
    ('../../../../../../../../../../etc/passwd', None), ('/etc/passwd', None), ('passwd', '/etc'),
    ('fd/0', '/proc/self'), ('../vop/catalogue.db', None),
])
def test_an_index_hands_out_nothing_but_videos(shared, folder, path, videos):
    server, index = shared
    place = os.stat(os.path.join(videos or folder / 'videos', path))
    changes = [('UPDATE files SET path = ?, size = ?, mtime_ns = ? WHERE id = (SELECT file FROM clips WHERE id = 1)',
                (path.encode(), place.st_size, place.st_mtime_ns))]
    if videos:
        changes.append(("UPDATE meta SET value = ? WHERE key = 'videos'", (json.dumps(videos), )))
    change_index(index, folder / 'vop', [])
    assert server.ask('/clips/0/1')[0] == 200
    change_index(index, folder / 'vop', changes)
    for kind in ('clips', 'pictures'):
        status, _, body = server.ask(f'/{kind}/0/1')
        assert status == 404 and len(body) < 300 and b'passwd' not in body


def test_a_script_that_came_into_the_page_would_not_run(browser, shared):
    page = browser.new_page()
    page.goto(shared[0].url)
    page.evaluate("""() => { document.body.insertAdjacentHTML('beforeend',
        '<img src="data:," onerror="window.hacked = 1"><iframe srcdoc="<script>parent.hacked = 2</script>"></iframe>');
        const script = document.createElement('script');
        script.textContent = 'window.hacked = 3';
        document.body.append(script);
        const link = document.createElement('a');
        link.href = 'javascript:window.hacked=4';
        document.body.append(link);
        link.click(); }""")
    time.sleep(0.3)
    assert page.evaluate('window.hacked') is None
    page.close()


# -- behind a proxy ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def behind(folder):
    with serving('vop', '--follow-links', '--root-path', '/sub/search', '--allow-host', 'search.example',
                 cwd=folder) as server:
        yield server


@pytest.fixture(scope='module')
def certificate(tmp_path_factory):
    """For TLS, signed by itself."""
    if shutil.which('openssl') is None:
        pytest.skip('no openssl: apt install openssl')
    path = tmp_path_factory.mktemp('tls') / 'both.pem'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
                    '-subj', '/CN=search.example', '-keyout', str(path), '-out', f'{path}.crt', '-days', '2'],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f'{path}.crt', path)
    return context


@pytest.mark.parametrize('scheme, keep_prefix, keep_host', [
    ('http', False, True), ('https', False, True), ('https', True, False),
])
def test_the_page_works_behind_a_proxy(request, browser, behind, folder, scheme, keep_prefix, keep_host):
    tls = request.getfixturevalue('certificate') if scheme == 'https' else None
    with reverse_proxy(behind.host, '/sub/search', keep_prefix, keep_host, tls) as port:
        base = f'{scheme}://search.example:{port}/sub/search/'
        page, asked, wrong = browser.new_page(ignore_https_errors=True), [], []
        page.on('request', lambda request: asked.append(request.url))
        page.on('console', lambda line: line.type == 'error' and wrong.append(line.text))
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.goto(base)
        page.wait_for_selector('#vop-summary .vop-summary')
        page.fill('#vop-query textarea', 'a white square')
        page.get_by_label('All moments').check()
        page.locator('#vop-count input[type=number]').fill('48')
        click_search(page)
        page.wait_for_load_state('networkidle')  # what was changed asks, too
        video = page.locator('.vop-card', has_text='long.mp4').filter(has_text='0:02-0:06').locator('video')
        video.scroll_into_view_if_needed()
        page.wait_for_function('v => v.readyState >= 2', arg=video.element_handle())
        assert video.evaluate('v => v.currentTime') == pytest.approx(2, abs=0.1)  # a range of the file
        still = page.locator('.vop-card', has_text='old.avi').locator('img').first
        still.scroll_into_view_if_needed()
        page.wait_for_function('i => i.complete && i.naturalWidth == 80', arg=still.element_handle())
        page.get_by_role('tab', name='Upload').click()
        page.set_input_files('#vop-drop input', folder / 'videos' / 'long.mp4')
        page.wait_for_selector('#vop-neighbors .vop-cards')
        assert page.locator('#vop-neighbors .vop-name').first.inner_text() == 'long.mp4'
        assert wrong == [] and len(asked) > 50
        assert [url for url in asked if not url.startswith((base, 'data:', 'blob:'))] == []
        page.close()


def test_a_page_under_a_path_is_found_with_and_without_it(behind):
    status, headers, _ = behind.ask('/sub/search')
    assert status == 307 and headers['location'] == 'search/'
    for path in ('/sub/search/', '/', '/sub/search/config', '/config', '/sub/search/pictures/0/1'):
        assert behind.ask(path)[0] == 200
    for path in ('/sub/searchconfig', '/sub/config', '/sub/search/sub/search/config', '/sub/search/../config',
                 '/sub/search/gradio_api/file=/etc/passwd'):
        assert behind.ask(path)[0] == 404
    page = behind.ask('/sub/search/')[2]
    assert b'href="/' not in page and b'src="/' not in page
