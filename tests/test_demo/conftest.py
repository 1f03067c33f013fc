"""The search page over two small indexes."""
import contextlib
import json
import shutil
import sqlite3

import pytest

from tests.browser import EVIL, serving
from tests.checkpoints import demo_config, write_checkpoint
from tests.tools import run_tool
from tests.videos import encode_video

WINDOW, STRIDE = 4., 1.


@pytest.fixture(scope='session')
def made(small_demo, tmp_path_factory):
    """What :func:`folder` has. Not to be changed."""
    folder = tmp_path_factory.mktemp('page')
    (folder / 'data').mkdir()
    (folder / 'data' / 'demo').symlink_to(small_demo)
    videos = folder / 'videos'
    videos.mkdir()
    for path in sorted((small_demo / 'videos').glob('test_*.mp4')):  # links that lead out of the folder
        (videos / path.name).symlink_to(path)
    encode_video(videos / 'long.mp4', 150)
    encode_video(videos / 'evil.mp4', 20, first=300)
    (videos / 'evil.mp4').rename(videos / EVIL)
    encode_video(videos / 'old.avi', 30, codec='mpeg4', first=500)
    (videos / 'bad.mp4').write_text('<b>no video</b>')
    for seed, name in enumerate(('vop_f_p', 'vop')):
        cfg = demo_config(f'vop/{name}_demo.py')
        (folder / f'{name}.py').write_text(cfg.pretty_text)
        write_checkpoint(folder / f'{name}.pth', cfg, seed)
        done = run_tool('tools/index_videos.py', 'videos', name, '--config', f'{name}.py', '--checkpoint',
                        f'{name}.pth', '--window', str(WINDOW), '--stride', str(STRIDE), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope='module')
def folder(made, tmp_path_factory):
    """Where the page runs: demo data, videos (one can't be read, one can't be played), and an index of each of two
    sets of prompts."""
    folder = tmp_path_factory.mktemp('pages') / 'page'
    shutil.copytree(made, folder, symlinks=True)
    for name in ('vop_f_p', 'vop'):
        with contextlib.closing(sqlite3.connect(folder / name / 'catalogue.db')) as db, db:
            db.execute("UPDATE meta SET value = ? WHERE key = 'videos'", (json.dumps(str(folder / 'videos')), ))
    return folder


@pytest.fixture(scope='module')
def server(folder):
    with serving('vop_f_p', 'plain=vop', '--max-upload-mb', '1', '--timeout', '20', '--follow-links',
                 cwd=folder) as server:
        yield server
