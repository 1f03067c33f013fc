"""tools/index_videos.py and tools/search.py."""
import base64
import html
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.checkpoints import demo_config, write_checkpoint
from tests.tools import run_tool
from tests.videos import encode_video, read_index
from vop_mm.apis import TextVideoRetriever


@pytest.fixture(scope='module')
def folder(small_demo, tmp_path_factory):
    """A folder with a config, a checkpoint, videos (one of them no video), and their index."""
    folder = tmp_path_factory.mktemp('search')
    cfg = demo_config('vop/vop_f_p_demo.py')
    (folder / 'config.py').write_text(cfg.pretty_text)
    write_checkpoint(folder / 'a.pth', cfg, 0)
    shutil.copytree(small_demo / 'videos', folder / 'videos')
    (folder / 'videos' / 'bad.mp4').write_text('<html>')
    encode_video(folder / 'videos' / 'long [b].mp4', 250)
    done = run_tool('tools/index_videos.py', 'videos', 'index', '--config', 'config.py', '--checkpoint', 'a.pth',
                    '--window', '4', '--stride', '2', '--json', 'report.json', cwd=folder)
    assert done.returncode == 0, done.stderr
    count = len(list((small_demo / 'videos').iterdir())) + 1
    assert f'{count} added, 0 changed, 0 removed, 0 unchanged, 1 can not be read' in done.stdout
    assert "'bad.mp4': not a video" in done.stdout or "'bad.mp4': " in done.stdout
    assert json.loads((folder / 'report.json').read_text())['failed'][0][0] == 'bad.mp4'
    return folder


def test_an_index_knows_what_it_was_made_with(folder, tmp_path):
    done = run_tool('tools/search.py', folder / 'index', 'a red square', '-k', '3', '--json', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    hits = TextVideoRetriever(str(folder / 'config.py'), folder / 'a.pth').search('a red square', folder / 'index', 3)
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


@pytest.mark.parametrize('args, message', [
    (('index', ''), 'the query is empty'),
    (('index', 'word ' * 10_000), '10000 words'),
    (('index', ), 'one of them'),
    (('index', 'a', '--image', 'a.pth'), 'one of them'),
    (('index', '--video', 'config.py'), 'config.py'),
    (('index', '--image', 'config.py'), 'not an image'),
    (('index', '--video', 'nothing.mp4'), 'no such file'),
    (('nothing', 'a'), 'no search index: nothing'),
    (('index', 'a', '--checkpoint', 'nothing.pth'), 'checkpoint not found'),
    (('index', 'a', '-k', '0'), 'k must be at least 1'),
    (('index', 'a', '--html', 'nowhere/a.html'), 'no such folder: nowhere'),
])
def test_bad_queries_are_one_line(folder, args, message):
    done = run_tool('tools/search.py', *args, cwd=folder)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(errors) == 1 and message in errors[0], done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('args, message', [
    (('videos', 'new'), 'is no index yet: name a --config'),
    (('nowhere', 'index'), 'no such folder of videos'),
    (('.', 'index'), 'is of the videos in'),
    (('videos', 'index', '--config', 'config.py'), 'other settings: prompts'),
    (('videos', 'index', '--window', '9'), 'other settings: window 4.0, not 9.0'),
    (('videos', 'new', '--config', 'config.py', '--window', '0'), 'windows take a length'),
    (('videos', 'new', '--config', 'config.py', '--milvus-uri', 'http://127.0.0.1:9'), 'can not be reached'),
    (('videos', 'new', '--config', 'config.py', '--checkpoint', 'config.py'), 'not a readable checkpoint'),
])
def test_bad_builds_are_one_line_and_change_nothing(folder, args, message):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file() and path.name != 'lock'}
    done = run_tool('tools/index_videos.py', *args, cwd=folder)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(errors) == 1 and message in errors[0], done.stderr
    after = {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file() and path.name != 'lock'}
    assert after == before and not (folder / 'new').exists()
