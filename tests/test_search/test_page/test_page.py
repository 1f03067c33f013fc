"""What the page of search asks its indexes, without the page; the page itself is in tests/test_demo/test_app.py."""
import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from tests.checkpoints import demo_config, write_checkpoint
from tests.videos import encode_video
from tests.web import web_server
from vop_mm.apis import VideoSearcher
from vop_mm.search import IndexMismatchError, SearchIndex
from vop_mm.search.catalogue import FileState
from vop_mm.search.page import cards
from vop_mm.search.page.collection import Collection, default_name, index_config, open_collections
from vop_mm.search.page.logs import FewLines
from vop_mm.search.page.served import open_served, path_by_handle
from vop_mm.search.page.texts import captions_of, gather_texts, read_texts, some_examples
from vop_mm.search.result_page import picture_of
from vop_mm.utils.shared_config import SharedConfigError


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Videos, and their indexes: by two sets of prompts, without any, and by a method that changes CLIP itself."""
    folder = tmp_path_factory.mktemp('indexes')
    (folder / 'videos').mkdir()
    for i in range(3):
        encode_video(folder / 'videos' / f'{i}.mp4', 20, first=100 * i)
    made = dict(vop='vop/vop_demo.py', f_p='vop/vop_f_p_demo.py', zero='baselines/zero_shot_demo.py',
                partial='baselines/partial_demo.py')
    for seed, (name, config) in enumerate(made.items()):
        cfg = demo_config(config)
        checkpoint = None if name == 'zero' else write_checkpoint(folder / f'{name}.pth', cfg, seed)
        VideoSearcher(cfg, checkpoint, num_workers=1).build_index(folder / 'videos', folder / name)
    return folder


@pytest.mark.parametrize('names', [('vop', 'f_p', 'zero', 'partial'), ('zero', 'partial', 'vop', 'f_p')])
def test_prompts_on_one_clip_share_it_and_each_searches_its_index(folder, names):
    collections = open_collections({name: folder / name for name in names})
    assert [collection.name for collection in collections] == list(names)
    by_name = {collection.name: collection for collection in collections}
    clips = {name: id(collection.prompt_set.model.backbone) for name, collection in by_name.items()}
    assert clips['vop'] == clips['f_p'] != clips['partial']
    assert (clips['zero'] == clips['vop']) == (names[0] == 'zero')  # without a checkpoint nothing can join others
    for name, collection in by_name.items():
        alone = VideoSearcher.from_index(folder / name, num_workers=1)
        expected = alone.search('a red circle', folder / name, 3)
        found = collection.search('a red circle', 3)
        assert [item.path for item in found] == [hit.path for hit in expected]
        np.testing.assert_allclose([item.score for item in found], [hit.score for hit in expected], atol=1e-5)
        for item in found:
            clip = collection.clip(item.number)
            with clip.file:
                assert clip.file.read() == Path(item.path).read_bytes()
                assert (clip.path, clip.start, clip.end) == (item.path, item.start, item.end)
        collection.close()


def test_an_index_from_before_readclip_says_what_to_do(folder, tmp_path):
    index = shutil.copytree(folder / 'vop', tmp_path / 'index')
    source = SearchIndex.source(index)
    with contextlib.closing(SearchIndex(index)) as gallery, gallery.locked(), gallery.catalogue.transaction():
        gallery.catalogue.set('source', dict(source, config=source['config'].replace("'ReadClip'", "'OpenVideo'")))
    for opens in (VideoSearcher.from_index, index_config, lambda index: open_collections(dict(a=index))):
        with pytest.raises(SharedConfigError, match=f'the index {index} is refused: .* older version .* index again'):
            opens(index)


def test_videos_elsewhere_are_found_and_nobody_is_asked_for_them(tmp_path):
    cfg = demo_config('baselines/zero_shot_demo.py')
    with web_server() as web:
        web.files['/a.mp4'] = Path(encode_video(tmp_path / 'a.mp4', 20)).read_bytes()
        (tmp_path / 'v.jsonl').write_text(json.dumps(dict(url=f'{web.url}/a.mp4?sign=hush')))
        VideoSearcher(cfg).build_index(tmp_path / 'v.jsonl', tmp_path / 'index')
        asked = len(web.requests)
        collection, = open_collections(dict(a=tmp_path / 'index'))
        found, = collection.search('a red circle')
        assert found.name == f'{web.url}/a.mp4?sign=' and 'hush' not in cards.cards([found], 0, {})
        with pytest.raises(FileNotFoundError):
            collection.clip(found.number)
        collection.close()
        assert len(web.requests) == asked


def test_an_index_that_changes_is_read_again(folder, tmp_path):
    videos, index = tmp_path / 'videos', tmp_path / 'index'
    shutil.copytree(folder / 'videos', videos)
    retriever = VideoSearcher.from_index(folder / 'vop', num_workers=1)
    retriever.build_index(videos, index)
    collection, = open_collections({'vop': index})
    status = collection.status()
    assert (status.clips, status.files, status.failed, status.waiting) == (3, 3, [], 0)
    assert collection.status() is status and abs(status.changed.timestamp() - time.time()) < 60
    (videos / 'bad.mp4').write_text('no video')
    encode_video(videos / '3.mp4', 20, first=300)
    retriever.build_index(videos, index)
    status = collection.status()
    assert (status.clips, status.files, [name for name, _ in status.failed]) == (4, 4, ['bad.mp4'])
    assert len(collection.search('a circle', 9)) == 4
    shutil.rmtree(index)
    with pytest.raises(FileNotFoundError, match='no search index'):
        collection.search('a circle')
    (videos / '3.mp4').unlink()
    retriever.build_index(videos, index)  # another one in its place
    assert len(collection.search('a circle', 9)) == collection.status().clips == 3
    shutil.rmtree(index)
    VideoSearcher.from_index(folder / 'f_p', num_workers=1).build_index(videos, index)
    with pytest.raises(IndexMismatchError, match='other settings: prompts'):
        collection.search('a circle')


def test_a_clip_is_the_file_that_was_indexed_or_nothing(folder, tmp_path):
    videos, index = tmp_path / 'videos', tmp_path / 'index'
    shutil.copytree(folder / 'videos', videos)
    VideoSearcher.from_index(folder / 'vop', num_workers=1).build_index(videos, index)
    collection, = open_collections({'vop': index})
    numbers = {item.name: item.number for item in collection.search('a circle', 3)}
    with collection.clip(numbers['0.mp4']).file as file:
        assert file.read() == (videos / '0.mp4').read_bytes()
    os.utime(videos / '0.mp4', ns=(1, 1))
    (videos / '1.mp4').unlink()
    (videos / '2.mp4').unlink()
    (videos / '2.mp4').symlink_to(folder / 'vop.pth')
    for name in ('0.mp4', '1.mp4', '2.mp4'):
        with pytest.raises(FileNotFoundError, match='has changed since it was indexed'):
            collection.clip(numbers[name])
    for number in (99, 0, 2**63, 2**80):
        with pytest.raises(FileNotFoundError, match='no such clip'):
            collection.clip(number)


@pytest.fixture(scope='module')
def shared_retriever(folder):
    return VideoSearcher.from_index(folder / 'vop', num_workers=1)


@pytest.fixture
def made_up(folder, shared_retriever, tmp_path):
    """An index and its videos in a folder of their own, to be changed as its author likes."""
    shutil.copytree(folder / 'videos', tmp_path / 'videos')
    shutil.copytree(folder / 'vop', tmp_path / 'index')
    collection = Collection('vop', tmp_path / 'index', shared_retriever, 'default')
    yield collection
    collection.close()


def link(path, target):
    path.symlink_to(target)
    return path.name


@pytest.mark.parametrize('claims', [
    lambda root: ('../secret.mp4', root / 'secret.mp4'),
    lambda root: ('a/../../secret.mp4', root / 'secret.mp4'),
    lambda root: (str(root / 'secret.mp4'), root / 'secret.mp4'),
    lambda root: (link(root / 'videos' / 'link.mp4', '../secret.mp4'), root / 'secret.mp4'),
    lambda root: (link(root / 'videos' / 'out', root) + '/secret.mp4', root / 'secret.mp4'),
    lambda root: ('../../../../../../../../etc/passwd', '/etc/passwd'),
    lambda root: ('passwd', '/etc/passwd', '/etc'),
    lambda root: ('etc/passwd', '/etc/passwd', '/'),
    lambda root: (link(root / 'videos' / 'passwd.mp4', '/etc/passwd'), '/etc/passwd'),
    lambda root: ('text.mp4', root / 'text.mp4', root),
    lambda root: ('hls.mp4', root / 'hls.mp4', root),
    lambda root: ('folder.mp4', root / 'folder.mp4', root),
    lambda root: ('fifo.mp4', root / 'fifo.mp4', root),
    lambda root: ('gone\0.mp4', root / 'secret.mp4', root),
    lambda root: ('', root / 'secret.mp4', root),
], ids=['above', 'around', 'absolute', 'link', 'folder-link', 'passwd', 'root-etc', 'root', 'link-to-passwd', 'text',
        'playlist', 'folder', 'fifo', 'nul', 'empty'])
@pytest.mark.parametrize('follow_links', [False, True])
def test_an_index_can_not_name_other_files_than_its_videos(folder, tmp_path, claims, follow_links):
    root = tmp_path
    shutil.copytree(folder / 'videos', root / 'videos')
    shutil.copy(root / 'videos' / '1.mp4', root / 'secret.mp4')
    (root / 'text.mp4').write_text('root:x:0:0:root')
    (root / 'hls.mp4').write_text('#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://secret.mp4\n')
    (root / 'folder.mp4').mkdir()
    os.mkfifo(root / 'fifo.mp4')
    name, file, *base = claims(root)
    found = os.stat(file)
    state = FileState(found.st_size, found.st_mtime_ns, None, None)

    def served(name):
        return open_served(str(base[0] if base else root / 'videos'), name, state, follow_links)

    if follow_links and name in ('link.mp4', 'out/secret.mp4'):  # who starts the page allows it
        with served(name) as opened:
            assert opened.read() == (root / 'secret.mp4').read_bytes()
        return
    with pytest.raises(FileNotFoundError, match='has changed since it was indexed .* or lies outside') as caught:
        served(name)
    with pytest.raises(FileNotFoundError) as missing:
        served('nothing.mp4')
    assert str(caught.value) == str(missing.value)  # nobody learns which files there are
    assert str(root) not in str(caught.value) and 'passwd' not in str(caught.value)


def test_a_file_is_served_that_was_opened_and_no_other_under_its_name(folder, tmp_path):
    shutil.copytree(folder / 'videos', tmp_path / 'videos')
    path = tmp_path / 'videos' / '0.mp4'
    content, found = path.read_bytes(), path.stat()
    with open_served(str(path.parent), path.name, FileState(found.st_size, found.st_mtime_ns, None, None)) as file:
        shutil.copy(tmp_path / 'videos' / '1.mp4', tmp_path / 'other')
        os.replace(tmp_path / 'other', path)
        assert file.read() == content
        picture = picture_of(path_by_handle(file, 'nowhere'), None, None)
    assert picture != picture_of(str(path), None, None)


@pytest.mark.parametrize('change', [
    "UPDATE clips SET start = 'x\" onload=a'", 'UPDATE clips SET stop = 9e999', "UPDATE clips SET stop = 'text'",
    "UPDATE clips SET start = x'00'",
    "UPDATE meta SET value = '[1]' WHERE key = 'settings'", "UPDATE meta SET value = '{}' WHERE key = 'settings'",
    "UPDATE meta SET value = 'null' WHERE key = 'settings'", "UPDATE meta SET value = '{' WHERE key = 'settings'",
    "UPDATE meta SET value = '7' WHERE key = 'videos'", "UPDATE meta SET value = 'null' WHERE key = 'videos'",
    "UPDATE meta SET value = '[]' WHERE key = 'backend'", "UPDATE meta SET value = '{}' WHERE key = 'backend'",
    "UPDATE meta SET value = '{\"type\": 5}' WHERE key = 'backend'", 'DROP TABLE clips', 'DROP TABLE files',
    'DROP TABLE meta', "UPDATE meta SET value = x'ff' WHERE key = 'settings'",
    "UPDATE files SET path = 'a' || id, size = 'text', hash = 7",
])
def test_an_index_of_other_values_is_one_line(made_up, change):
    """Nothing but ValueError and OSError, which the page shows as one message."""
    with contextlib.closing(sqlite3.connect(made_up.index / 'catalogue.db')) as db, db:
        db.execute(change)
    made_up.close()
    for ask in (lambda: cards.cards(made_up.search('a circle', 3), 0, {}), lambda: made_up.clip(1),
                lambda: cards.status_table('a', 'b', made_up.status()), lambda: default_name(made_up.index),
                lambda: index_config(made_up.index)):
        try:
            ask()
        except (ValueError, OSError) as e:
            said = str(e)
        else:
            said = 'an answer'
        assert len(said.splitlines()) == 1


def test_what_is_no_index_says_so(folder, tmp_path):
    VideoSearcher.from_index(folder / 'vop', num_workers=1).extract_features(folder / 'videos', tmp_path / 'f', 1)
    with pytest.raises(ValueError, match='holds extracted features and no index'):
        open_collections({'f': next((tmp_path / 'f').iterdir())})
    gallery = SearchIndex.create(tmp_path / 'bare', folder, dict(dim=4, prompts='a, b'), dict(type='FaissIndex'))
    gallery.close()
    with pytest.raises(ValueError, match='does not say what it was made with'):
        index_config(tmp_path / 'bare')


def test_texts_come_from_files_and_annotations(folder, tmp_path, monkeypatch):
    (tmp_path / 'a.txt').write_text('\ufeffone\n\n two \none\n', encoding='utf-8')
    assert read_texts(tmp_path / 'a.txt') == ['one', 'two']
    entries = [dict(video_id='0', video='0.mp4', captions=['red', 'blue']),
               dict(video_id='1', video='1.mp4', captions=['red'], start=1, end=2)]
    (tmp_path / 'test.json').write_text(json.dumps(dict(data_list=entries)))
    assert read_texts(tmp_path / 'test.json') == ['red', 'blue']
    dataset = dict(data_root=str(tmp_path), ann_file='test.json', data_prefix=dict(video='v'))
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    (tmp_path / 'v').symlink_to(folder / 'videos')
    captions = captions_of(cfg)
    assert captions == {os.path.realpath(folder / 'videos' / '0.mp4'): ['red', 'blue']}  # whole videos, links followed
    texts = gather_texts(None, [cfg])
    assert (texts.compared, texts.examples, texts.captions) == (['red', 'blue'], ['red', 'blue'], captions)
    assert gather_texts(tmp_path / 'a.txt', [cfg]).compared == ['one', 'two']
    (tmp_path / 'test.json').write_text('{')
    assert captions_of(cfg) == {} and 'a dog' in ' '.join(gather_texts(None, [cfg]).examples)
    assert some_examples([f'text {i}' for i in range(100)] + ['long' * 50], 4) == [f'text {i}' for i in (0, 25, 50, 75)]
    with pytest.raises(ValueError, match='holds 10001 texts: 1 to 10000 are taken'):
        (tmp_path / 'a.txt').write_text('\n'.join(map(str, range(10_001))))
        read_texts(tmp_path / 'a.txt')


def test_a_set_of_prompts_is_called_by_its_method(folder):
    assert [default_name(folder / name) for name in ('vop', 'f_p', 'partial')] == ['VoP', 'VoP^F+P', 'Partial']


@pytest.mark.parametrize('parts, pause, status, message', [
    ((b'ab', b'cd'), 0, 200, 'abcd as a.mp4'),
    ((b'ab', b'cdefgh'), 0, 400, 'a.mp4 did not come whole, or not in time'),  # more than the request said
    ((b'ab', b'cd'), 5, 400, 'a.mp4 did not come whole, or not in time'),  # too long without a byte
    ((b'a', b'b', b'c', b'd', b''), 0.25, 400, 'a.mp4 did not come whole, or not in time'),  # too slowly
])
def test_an_upload_is_limited_in_size_and_time(tmp_path, parts, pause, status, message):
    httpx, starlette = pytest.importorskip('httpx'), pytest.importorskip('starlette.applications')
    from vop_mm.search.page.uploads import upload_route

    def answer(path, name):
        assert path.startswith(str(tmp_path)) and path.endswith('.mp4')
        return f'{Path(path).read_text()} as {name}'

    async def body():
        for part in parts:
            yield part
            await asyncio.sleep(pause)

    async def post():
        app = starlette.Starlette(routes=[upload_route([answer], 4, str(tmp_path), pause=0.5)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://page') as client:
            return await client.post('/nearest/0?name=a.mp4', content=body(), headers={'content-length': '4'})

    found = asyncio.run(post())
    assert found.status_code == status and message in found.text and not list(tmp_path.iterdir())


def test_an_upload_whose_client_is_gone_is_not_computed(tmp_path):
    starlette = pytest.importorskip('starlette.applications')
    from vop_mm.search.page.uploads import upload_route
    computed = []

    def answer(path, name):
        computed.append(name)
        time.sleep(0.2)
        return name

    async def post(app, name, stays):
        messages = [dict(type='http.request', body=b'ab')]

        async def receive():
            if not messages and stays:
                await asyncio.sleep(10)
            return messages.pop() if messages else dict(type='http.disconnect')

        async def send(message):
            pass

        await app(dict(type='http', method='POST', path='/nearest/0', query_string=f'name={name}'.encode(),
                       headers=[(b'content-length', b'2')]), receive, send)

    async def post_all():
        app = starlette.Starlette(routes=[upload_route([answer], 4, str(tmp_path))])
        await asyncio.gather(*(post(app, name, name != 'gone') for name in ('first', 'gone', 'last')))

    asyncio.run(post_all())
    assert sorted(computed) == ['first', 'last']  # in the order in which they came whole
    assert not list(tmp_path.iterdir())


def test_html_holds_no_text_from_outside(folder):
    collection, = open_collections({'vop': folder / 'vop'})
    evil = '<script>"\'&\udcff'
    found = collection.search('a circle', 1)[0]
    found = [type(found)(**{**found.__dict__, 'name': f'{evil}.mp4'})]
    html = ''.join([
        cards.message(evil), cards.heading(evil, evil), cards.uploaded(evil, b''), cards.status_table(
            evil, evil, type(collection.status())(**{**collection.status().__dict__, 'failed': [(evil, evil)]})),
        cards.cards(found, 0, {os.path.realpath(found[0].path): [evil]}),
        cards.ranked_texts([], 1, evil), cards.unknown([evil])])
    assert '<script' not in html and html.count('&lt;script&gt;&quot;&#x27;&amp;?') >= 11
    html.encode()


def test_values_are_escaped_whatever_type_they_claim(folder):
    collection, = open_collections({'vop': folder / 'vop'})
    found, status = collection.search('a circle', 1)[0], collection.status()
    collection.close()
    evil = '"><img src=x onerror=a>'
    for key in ('name', 'version'):
        assert '<img src=x' not in cards.cards([dataclasses.replace(found, **{key: evil})], 0, {})
    for key in ('number', 'score', 'start', 'end'):
        with pytest.raises((ValueError, TypeError)):
            cards.cards([dataclasses.replace(found, **{key: evil})], 0, {})
    for key in ('window', 'stride', 'CLIP', 'prompts', 'dim'):
        for settings in ({**status.settings, key: evil}, {**status.settings, key: [evil]}, {key: {evil: evil}}):
            assert '<img' not in cards.status_table('a', 'b', dataclasses.replace(status, settings=settings))
    for key in ('videos', 'backend'):
        assert '<img' not in cards.status_table('a', 'b', dataclasses.replace(status, **{key: evil}))


@pytest.mark.parametrize('text, told', [
    ('[/tmp/.vop_mm.12.page.tmp/tmpab.mp4] Failed to measure duration', '[...] Failed to measure duration'),
    ("can't open '/srv/x/y.mp4': gone", "can't open '...': gone"),
    ('no search index: /home/somebody/index', 'no search index: ...'),
    ("the path '/srv/my (own), videos/y.mp4' leads out", "the path '...' leads out"),
    ('the path "/srv/it\'s/y" isn\'t / there', 'the path "..." isn\'t / there'),
    ('see file:///etc/passwd', 'see ...'),
    ('H.264/AVC, 1/2, km/h, and/or', 'H.264/AVC, 1/2, km/h, and/or'),
])
def test_messages_name_no_path_of_the_machine(text, told):
    assert cards.without_paths(text) == told


def test_an_error_of_the_system_names_no_file():
    pytest.importorskip('gradio')
    from vop_mm.search.page.page import SearchPage
    told = SearchPage([], None, None, 1)._told(PermissionError(13, 'Permission denied', '/srv/my videos/a.mp4'))
    assert told == 'Permission denied'


def test_few_lines_are_logged_and_none_of_them_is_a_traceback():
    few = FewLines(per_minute=3)
    try:
        raise TypeError('a\nb')
    except TypeError:
        failed = logging.LogRecord('a', logging.ERROR, '', 0, 'it\n failed %s', ('here', ), sys.exc_info())
    assert few.filter(failed) and logging.Formatter().format(failed) == 'it failed here: TypeError: a b'
    records = [logging.LogRecord('a', logging.ERROR, '', 0, 'x\x1b[2J', (), None) for _ in range(10)]
    assert [few.filter(record) for record in records] == [True] * 2 + [False] * 8
    assert records[0].getMessage() == 'x?[2J'
    few._begin -= 61  # a minute later
    assert few.filter(records[-1]) and records[-1].getMessage() == 'x?[2J (8 lines before this one were left out)'
    long = logging.LogRecord('a', logging.ERROR, '', 0, 'x' * 100_000, (), None)
    assert few.filter(long) and len(long.getMessage()) < 1100


@pytest.mark.parametrize('address, server, host, known', [
    ('127.0.0.1', '127.0.0.1', '127.0.0.1:7860', True), ('127.0.0.1', '127.0.0.1', '192.0.2.7', False),
    ('0.0.0.0', '192.0.2.7', '192.0.2.7:7860', True), ('0.0.0.0', '192.0.2.7', '192.0.2.8', False),
    ('0.0.0.0', '192.0.2.7', 'here.example', False), ('0.0.0.0', '192.0.2.7', '0.0.0.0', False),
    ('::', '2001:db8::7', '[2001:DB8:0::7]:7860', True), ('::', '2001:db8::7', '[2001:db8::8]', False),
    ('here.example', '192.0.2.7', 'HERE.example', True), ('here.example', '192.0.2.7', '192.0.2.7', False),
    ('192.0.2.7', '192.0.2.7', '192.0.2.7', True), ('192.0.2.7', '192.0.2.7', 'localhost', True),
])
def test_a_server_is_called_by_its_address(address, server, host, known):
    pytest.importorskip('starlette')
    from starlette.datastructures import Headers

    from vop_mm.search.page.hosts import Hosts
    assert (Hosts(address).called(Headers({'host': host}), (server, 7860)) == host) == known
