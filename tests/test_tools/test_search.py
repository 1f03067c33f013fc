"""tools/index_videos.py and tools/search.py."""
import base64
import html
import io
import json
import os
import re
import shutil
import sqlite3

import numpy as np
import pytest
import torch
from PIL import Image

from tests.checkpoints import demo_config, write_checkpoint
from tests.test_tools.test_crafted_pickle import Code
from tests.tools import free_port, obey_permissions, run_tool
from tests.videos import encode_video, read_index
from vop_mm.apis import VideoSearcher
from vop_mm.engine.checkpoint import CheckpointError
from vop_mm.search import SearchIndex

MADE_WITH = ('--config', 'config.py', '--checkpoint')


@pytest.fixture(scope='module')
def folder(small_demo, tmp_path_factory):
    """A folder with a config, a checkpoint, videos (one of them no video), and their index."""
    folder = tmp_path_factory.mktemp('search')
    cfg = demo_config('vop/vop_f_p_demo.py')
    (folder / 'config.py').write_text(cfg.pretty_text)
    write_checkpoint(folder / 'a.pth', cfg, 0)
    write_checkpoint(folder / 'b.pth', cfg, 1)
    shutil.copytree(small_demo / 'videos', folder / 'videos')
    (folder / 'videos' / 'bad.mp4').write_text('<html>')
    encode_video(folder / 'videos' / 'long [b].mp4', 250)
    done = run_tool('tools/index_videos.py', 'videos', 'index', '--config', 'config.py', '--checkpoint', 'a.pth',
                    '--window', '4', '--stride', '2', '--json', 'report.json', cwd=folder)
    assert done.returncode == 0, done.stderr
    count = len(list((small_demo / 'videos').iterdir())) + 1
    assert f'{count} added, 0 changed, 0 removed, 0 unchanged, 1 cannot be read' in done.stdout
    assert "'bad.mp4': not a video" in done.stdout or "'bad.mp4': " in done.stdout
    assert json.loads((folder / 'report.json').read_text())['failed'][0][0] == 'bad.mp4'
    return folder


def test_an_index_knows_what_it_was_made_with(folder, tmp_path):
    done = run_tool('tools/search.py', folder / 'index', 'a red square', '-k', '3', '--json', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    hits = VideoSearcher(str(folder / 'config.py'), folder / 'a.pth').search('a red square', folder / 'index', 3)
    assert [hit['path'] for hit in found] == [hit.path for hit in hits]
    assert [hit['score'] for hit in found] == pytest.approx([hit.score for hit in hits], abs=1e-5)
    assert all(hit.keys() == {'path', 'score', 'start', 'end'} and os.path.isfile(hit['path']) for hit in found)
    again = run_tool('tools/index_videos.py', folder / 'videos', folder / 'index', cwd=tmp_path)
    assert again.returncode == 0 and '0 added, 0 changed, 0 removed' in again.stdout, again.stderr


def test_table_and_page_of_a_video_search(folder, tmp_path):
    page = tmp_path / 'page.html'
    query = folder / 'videos' / 'long [b].mp4'
    done = run_tool('tools/search.py', folder / 'index', '--video', query, '-k', '4', '--all-moments', '--html', page)
    assert done.returncode == 0, done.stderr
    assert 'long [b].mp4' in re.sub(r'[\s│]', '', done.stdout).replace('long[b]', 'long [b]')
    hits = json.loads(run_tool('tools/search.py', folder / 'index', '--video', query, '-k', '4', '--all-moments',
                               '--json').stdout)
    text = page.read_text()
    pictures = re.findall(r'base64,([^"]+)"', text)
    assert len(pictures) == len(hits) == 4 and 'long%20%5Bb%5D.mp4#t=' in text
    assert hits[0]['path'] == str(query)
    for hit, picture in zip(hits, pictures):
        if hit['path'] == str(query):  # the frame in the middle of the moment; frames have their numbers painted in
            frame = Image.open(io.BytesIO(base64.b64decode(picture))).convert('RGB')
            assert abs(read_index(np.asarray(frame)) - 25 * (hit['start'] + hit['end']) / 2) < 2


def test_each_line_of_a_file_is_a_query(folder, tmp_path):
    queries = ['a red square', '[b]two circles[/b]', 'a red square']
    (tmp_path / 'q.txt').write_text('\ufeff' + '\n\n'.join(queries) + '\n', encoding='utf-8')
    done = run_tool('tools/search.py', folder / 'index', '--queries', tmp_path / 'q.txt', '-k', '3', '--json')
    found = json.loads(done.stdout)
    assert [item['query'] for item in found] == queries and found[0] == found[2], done.stderr
    for item in found[:2]:
        alone = json.loads(run_tool('tools/search.py', folder / 'index', item['query'], '-k', '3', '--json').stdout)
        scores = [hit.pop('score') for hit in alone]
        assert [hit.pop('score') for hit in item['hits']] == pytest.approx(scores, abs=1e-5)
        assert item['hits'] == alone
    table = run_tool('tools/search.py', folder / 'index', '--queries', tmp_path / 'q.txt', '-k', '1')
    assert table.returncode == 0 and all(query in table.stdout for query in queries), table.stderr
    (tmp_path / 'q.txt').write_text('\n')
    done = run_tool('tools/search.py', folder / 'index', '--queries', tmp_path / 'q.txt')
    assert_one_line(done, 'contains no queries')


def test_the_table_names_videos_from_where_one_is(folder):
    for cwd, name in ((folder, 'videos/'), (folder / 'videos', ''), (folder.parent, f'{folder.name}/videos/')):
        done = run_tool('tools/search.py', folder / 'index', 'a red square', '-k', '1', cwd=cwd)
        assert done.returncode == 0 and f'│ {name}' in done.stdout and str(folder) not in done.stdout, done.stdout


def test_queries_and_names_are_escaped_in_a_page(folder, tmp_path):
    videos, evil = tmp_path / 'videos', '<img src=x onerror=alert(1)>"\'&.mp4'
    videos.mkdir()
    encode_video(videos / 'a.mp4', 10)
    (videos / 'a.mp4').rename(videos / evil)
    done = run_tool('tools/index_videos.py', videos, tmp_path / 'index', '--config', folder / 'config.py',
                    '--checkpoint', folder / 'a.pth')
    assert done.returncode == 0, done.stderr
    query = '<script>alert(2)</script>'
    assert run_tool('tools/search.py', tmp_path / 'index', query, '--html', tmp_path / 'p.html').returncode == 0
    text = (tmp_path / 'p.html').read_text()
    assert '<script' not in text and 'src=x' not in text.replace(html.escape(evil), '')
    assert html.escape(evil) in text and html.escape(query) in text


def test_words_that_the_model_does_not_know_are_named(folder, tmp_path):
    page, note = tmp_path / 'p.html', "the model doesn't know: man, riding, bike"
    done = run_tool('tools/search.py', folder / 'index', 'a man riding a bike', '--json', '--html', page)
    assert done.returncode == 0 and done.stderr.splitlines() == [note, f'wrote {page}'], done.stderr
    assert len(json.loads(done.stdout)) == 5 and f'<p>{html.escape(note)}</p>' in page.read_text()
    many = run_tool('tools/search.py', folder / 'index', ' '.join(f'<b>word{i}' for i in range(150)))
    assert many.returncode == 0 and '│' in many.stdout
    assert many.stderr.count('\n') == 1 and many.stderr.endswith('and 141 more\n') and len(many.stderr) < 500
    for query in (['a red circle'], ['?!'], ['--video', folder / 'videos' / 'long [b].mp4']):
        known = run_tool('tools/search.py', folder / 'index', *query, '--json')
        assert known.returncode == 0 and not known.stderr and json.loads(known.stdout)


@pytest.mark.parametrize('args, message', [
    (('index', ''), 'the query is empty'),
    (('index', 'word ' * 10_000), '10000 words'),
    (('index', ), 'exactly one of'),
    (('index', 'a', '--image', 'a.pth'), 'exactly one of'),
    (('index', 'a', '--queries', 'config.py'), 'exactly one of'),
    (('index', '--queries', 'a.pth'), 'a.pth is not a text file'),
    (('index', '--video', 'config.py'), 'config.py'),
    (('index', '--image', 'config.py'), 'not an image'),
    (('index', '--video', 'nothing.mp4'), 'no such file'),
    (('nothing', 'a'), 'no search index: nothing'),
    (('index', 'a', '--checkpoint', 'nothing.pth'), 'checkpoint not found'),
    (('index', 'a', '-k', '0'), 'k must be at least 1'),
    (('index', 'a', '--html', 'nowhere/a.html'), 'no such folder: nowhere'),
])
def test_bad_queries_are_one_line_and_change_nothing(folder, args, message):
    before = contents(folder / 'index')
    assert_one_line(run_tool('tools/search.py', *args, cwd=folder), message)
    assert contents(folder / 'index') == before


@pytest.mark.parametrize('args, message', [
    (('videos', 'new'), 'is not an index: use --config'),
    (('nowhere', 'index'), 'video folder not found'),
    (('.', 'index'), 'is for the videos in'),
    (('videos', 'new', '--config', 'config.py'), 'config.py trains: name the checkpoint to encode with'),
    (('videos', 'index', *MADE_WITH, 'b.pth'), 'other settings: prompts'),
    (('videos', 'index', '--window', '9'), 'other settings: window 4.0, not 9.0'),
    (('videos', 'new', *MADE_WITH, 'a.pth', '--window', '0'), 'window and stride must be positive'),
    (('videos', 'new', *MADE_WITH, 'a.pth', '--milvus-uri', 'http://127.0.0.1:9'), 'cannot be reached'),
    (('videos', 'new', *MADE_WITH, 'config.py'), 'not a readable checkpoint'),
    (('videos', 'new', '--config', 'nothing.py'), 'config not found: nothing.py'),
    (('videos', 'index', '--backend', 'milvus'), 'which cannot be changed: create another'),
    (('videos', 'index', '--num-probes', '0'), 'num_probes must be at least 1'),
    (('empty', 'new', *MADE_WITH, 'a.pth'), 'no videos in empty'),
    (('empty', 'index'), 'is for the videos in'),
])
def test_bad_builds_are_one_line_and_change_nothing(folder, args, message):
    (folder / 'empty').mkdir(exist_ok=True)
    before = contents(folder)
    assert_one_line(run_tool('tools/index_videos.py', *args, cwd=folder), message)
    assert contents(folder) == before and not (folder / 'new').exists()


def test_a_folder_that_has_become_empty_is_not_forgotten(folder, tmp_path):
    index = copy_of(folder, tmp_path)
    for path in (tmp_path / 'videos').iterdir():
        path.unlink()
    before = contents(index)
    done = run_tool('tools/index_videos.py', tmp_path / 'videos', index)
    assert_one_line(done, 'no videos in')
    assert contents(index) == before


@pytest.mark.parametrize('locked, mode, tool, message', [
    ('index', 0o500, 'index_videos', 'catalogue.db cannot be written'),
    ('index/catalogue.db', 0o400, 'index_videos', 'cannot be written'),
    ('videos', 0, 'index_videos', 'Permission denied'),
    ('.', 0o500, 'index_videos new', 'Permission denied'),
    ('index', 0, 'search', 'Permission denied'),
    ('index/catalogue.db', 0, 'search', 'Permission denied'),
    ('.', 0o500, 'search page', 'Permission denied'),
])
def test_no_permission_is_one_line_and_changes_nothing(folder, tmp_path, locked, mode, tool, message):
    index = copy_of(folder, tmp_path)
    (tmp_path / 'videos' / 'long [b].mp4').unlink()  # there is something to do
    before = contents(tmp_path)
    (tmp_path / locked).chmod(mode)
    try:
        done = run_tool(*{
            'index_videos': ('tools/index_videos.py', tmp_path / 'videos', index),
            'index_videos new': ('tools/index_videos.py', tmp_path / 'videos', tmp_path / 'new', '--config',
                                 folder / 'config.py', '--checkpoint', folder / 'a.pth'),
            'search': ('tools/search.py', index, 'a red square'),
            'search page': ('tools/search.py', index, 'a red square', '--html', tmp_path / 'page.html'),
        }[tool], before=obey_permissions)
    finally:
        (tmp_path / locked).chmod(0o700)
    assert_one_line(done, message)
    assert contents(tmp_path) == before


def test_files_that_can_not_be_reached_are_reported_and_stay(folder, tmp_path):
    index, videos = copy_of(folder, tmp_path), tmp_path / 'videos'
    count = len(list(videos.iterdir()))
    videos.chmod(0o400)  # names can be read, files cannot
    done = run_tool('tools/index_videos.py', videos, index, before=obey_permissions)
    videos.chmod(0o700)
    assert done.returncode == 0 and f'0 removed, 0 unchanged, {count} cannot be read' in done.stdout, done.stderr
    assert "'long [b].mp4': Permission denied" in done.stdout
    again = run_tool('tools/index_videos.py', videos, index, '--json', tmp_path / 'report.json')
    assert f'{count - 1} unchanged, 1 cannot be read' in again.stdout, again.stderr
    assert json.loads((tmp_path / 'report.json').read_text())['encoded'] == 0


def test_an_index_that_can_not_be_written_is_searched(folder, tmp_path):
    index = copy_of(folder, tmp_path)
    for path in (index, *index.iterdir()):
        path.chmod(0o500)
    done = run_tool('tools/search.py', index, 'a red square', '--json', before=obey_permissions)
    index.chmod(0o700)
    assert done.returncode == 0 and len(json.loads(done.stdout)) == 5, done.stderr


def test_milvus_that_is_gone_or_taken_is_one_line(folder, tmp_path, monkeypatch):
    pytest.importorskip('milvus_lite')
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    port = free_port()
    server, database, _ = start_server_in_thread(str(tmp_path / 'server'), port=port)
    make = ('tools/index_videos.py', folder / 'videos', tmp_path / 'index', '--config', folder / 'config.py',
            '--checkpoint', folder / 'a.pth')
    done = run_tool(*make, '--milvus-uri', f'http://127.0.0.1:{port}')
    assert done.returncode == 0, done.stderr
    before = contents(tmp_path / 'index')
    assert_one_line(run_tool('tools/search.py', tmp_path / 'index', 'a red square'), 'set VOP_MM_MILVUS_URI')
    monkeypatch.setenv('VOP_MM_MILVUS_URI', f'http://127.0.0.1:{port}')  # a server is talked to when the user names it
    assert contents(tmp_path / 'index') == before
    found = run_tool('tools/search.py', tmp_path / 'index', 'a red square', '--json')
    assert len(json.loads(found.stdout)) == 5, found.stderr
    server.stop(0)
    database.close()
    before = contents(tmp_path)
    assert_one_line(run_tool('tools/search.py', tmp_path / 'index', 'a red square'), 'cannot be reached')
    assert_one_line(run_tool(*make), 'cannot be reached')
    assert contents(tmp_path) == before

    lite = tmp_path / 'lite'
    assert run_tool(*make[:2], lite, *make[3:], '--backend', 'milvus').returncode == 0
    search_index = SearchIndex(lite)
    assert_one_line(run_tool('tools/search.py', lite, 'a red square'), 'another process may have it open')
    search_index.close()  # lets others have it
    again = run_tool('tools/search.py', lite, 'a red square', '--json')
    assert [hit['path'] for hit in json.loads(again.stdout)] == [hit['path'] for hit in json.loads(found.stdout)]


def test_a_crafted_checkpoint_is_refused_and_not_run(folder, tmp_path):
    content = torch.load(folder / 'a.pth', weights_only=True)
    torch.save(dict(content, message_hub=Code(str(tmp_path / 'it_ran'))), tmp_path / 'crafted.pth')
    before = contents(folder)
    assert_one_line(run_tool('tools/search.py', folder / 'index', 'a', '--checkpoint', tmp_path / 'crafted.pth'),
                    'refused')
    for several in (False, True):
        with pytest.raises(CheckpointError, match='refused'):
            VideoSearcher(str(folder / 'config.py'),
                               {'a': tmp_path / 'crafted.pth'} if several else tmp_path / 'crafted.pth')
    assert not (tmp_path / 'it_ran').exists() and contents(folder) == before


def assert_one_line(done, message):
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(errors) == 1 and message in errors[0], done.stderr
    assert 'Traceback' not in done.stderr + done.stdout and len(done.stderr) < 600 and not done.stdout


def contents(folder):
    """Every file's bytes."""
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def copy_of(folder, to):
    """The index of a copy of the videos."""
    shutil.copytree(folder / 'videos', to / 'videos')
    shutil.copytree(folder / 'index', to / 'index')
    db = sqlite3.connect(to / 'index' / 'catalogue.db')
    db.execute("UPDATE meta SET value = ? WHERE key = 'videos'", (json.dumps(str(to / 'videos')), ))
    db.commit()
    db.close()
    return to / 'index'
