"""tools/index_videos.py and tools/search.py with indexes of others, files that can't be read, and Ctrl-C."""
import json
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from contextlib import closing

import numpy as np
import pytest

from tests.checkpoints import demo_config, write_checkpoint
from tests.indexes import change
from tests.tools import ForkedTool, run_tool
from tests.videos import encode_video, spoil_frames
from vop_mm.search import SearchIndex

MADE_WITH = '--config', 'config.py', '--checkpoint', 'a.pth'


@pytest.fixture(scope='module')
def folder(small_demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp('index_videos')
    cfg = demo_config('vop/vop_demo.py')
    (folder / 'config.py').write_text(cfg.pretty_text)
    write_checkpoint(folder / 'a.pth', cfg, 0)
    shutil.copytree(small_demo / 'videos', folder / 'videos')
    assert build(folder).returncode == 0
    return folder


def build(folder, videos='videos', index='index', *args):
    return run_tool('tools/index_videos.py', videos, index, *MADE_WITH, *args, cwd=folder)


def assert_one_line(done, *messages):
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(errors) == 1 and all(m in errors[0] for m in messages), done.stderr
    assert 'Traceback' not in done.stderr + done.stdout and len(done.stderr) < 900


@pytest.mark.parametrize('statements, message', [
    (('DROP TABLE meta', 'CREATE VIEW meta (key, value) AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 '
      'FROM n) SELECT i, i FROM n'), 'catalogue.db is not a catalog'),
    (('CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM files; END', ), 'catalogue.db is not a catalog'),
    (("UPDATE meta SET value = '{\"dim\": \"a\"}' WHERE key = 'settings'", ), 'catalogue.db is not a catalog'),
    (("UPDATE meta SET value = x'00' WHERE key = 'generation'", ), 'catalogue.db is not a catalog'),
    (("UPDATE files SET path = CAST('../../etc/passwd' AS BLOB), checksum = NULL WHERE id = 1", ), 'is outside of'),
    (('UPDATE clips SET vector = zeroblob(length(vector))', ), 'catalogue.db is not a catalog')])
def test_an_index_of_somebody_else_is_one_line_for_every_tool(folder, tmp_path, statements, message):
    shutil.copytree(folder / 'index', tmp_path / 'index')
    (tmp_path / 'index' / 'vectors.faiss').unlink()  # so that everything is read
    change(tmp_path / 'index', *statements)
    before = (tmp_path / 'index' / 'catalogue.db').read_bytes()
    done = run_tool('tools/index_videos.py', folder / 'videos', tmp_path / 'index')
    assert_one_line(done, message)
    if 'files' not in statements[0] and 'clips' not in statements[0]:
        assert_one_line(run_tool('tools/search.py', tmp_path / 'index', 'a red square'), message)
        assert (tmp_path / 'index' / 'catalogue.db').read_bytes() == before


def test_a_damaged_file_of_vectors_is_one_line_of_warning_and_mended(folder, tmp_path):
    shutil.copytree(folder / 'index', tmp_path / 'index')
    path = tmp_path / 'index' / 'vectors.faiss'
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + b'?' + whole[-39:])
    expected = run_tool('tools/search.py', folder / 'index', 'a red square', '--json')
    for mended in (False, True):
        done = run_tool('tools/search.py', tmp_path / 'index', 'a red square', '--json')
        assert [hit['path'] for hit in json.loads(done.stdout)] == [hit['path'] for hit in json.loads(expected.stdout)]
        assert done.stderr.count('vectors.faiss is damaged') == (not mended) == len(
            [line for line in done.stderr.splitlines() if 'vectors' in line]), done.stderr
        if not mended:
            again = run_tool('tools/index_videos.py', folder / 'videos', tmp_path / 'index')
            assert again.returncode == 0 and '0 added, 0 changed, 0 removed' in again.stdout, again.stderr
    assert path.stat().st_size == len(whole)


def test_the_status_says_that_no_file_can_be_read(folder, tmp_path):
    """Alone: one file that can be read is an index."""
    (tmp_path / 'videos').mkdir()
    for number in range(2):
        (tmp_path / 'videos' / f'{number}.mp4').write_bytes(b'<html>')
    done = build(folder, tmp_path / 'videos', tmp_path / 'index')
    assert done.returncode == 3 and '2 cannot be read' in done.stdout and 'Traceback' not in done.stderr, done.stderr
    shutil.copy(next((folder / 'videos').glob('*.mp4')), tmp_path / 'videos')
    done = build(folder, tmp_path / 'videos', tmp_path / 'index')
    assert done.returncode == 0 and '1 added' in done.stdout and '2 cannot be read' in done.stdout, done.stderr


def test_the_status_says_so_of_features_too(folder, tmp_path):
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos' / 'a.mp4').write_bytes(b'<html>')
    (tmp_path / 'videos' / 'b.txt').touch()
    extract = 'tools/extract_features.py', tmp_path / 'videos', tmp_path / 'f', *MADE_WITH, '--shards', '2'
    for rank, status in ((0, 0), (1, 3)):  # the last one knows, and nobody is ended for what the first one read
        done = run_tool(*extract, cwd=folder,
                        before=lambda rank=rank: os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK='0'))
        assert done.returncode == status, done.stdout + done.stderr
        assert ('no file of the collection can be read' in done.stdout) == bool(status)
    done = run_tool(*extract, cwd=folder)
    assert done.returncode == 3 and '1 files cannot be read' in ' '.join(done.stdout.split()), done.stderr
    assert len([line for line in done.stdout.splitlines() if "no file of the collection can be read; 'a.mp4': " in line]
               ) == 1, done.stdout
    assert 'left out: 1 file without a video extension (.txt 1)' in done.stdout
    done = run_tool('tools/index_videos.py', tmp_path / 'videos', tmp_path / 'index', '--features', tmp_path / 'f')
    assert done.returncode == 3 and '1 cannot be read' in done.stdout, done.stdout + done.stderr


def test_a_bad_second_of_a_film_is_said(folder, tmp_path):
    (tmp_path / 'videos').mkdir()
    path = encode_video(tmp_path / 'videos' / 'film.mp4', 120, fps=12, max_b_frames=0,
                        options={'x264-params': 'scenecut=0'})
    spoil_frames(path, slice(63, 65))
    done = build(folder, tmp_path / 'videos', tmp_path / 'index', '--window', 2, '--stride', 2, '--json',
                 tmp_path / 'report.json')
    assert done.returncode == 0 and ': 4 clips; files: 1 added' in done.stdout, done.stdout + done.stderr
    assert ", 0 cannot be read, 1 in part\n  'film.mp4': 1 of 5 windows can't be read: " in done.stdout
    assert json.loads((tmp_path / 'report.json').read_text())['partly'][0][0] == 'film.mp4'


def test_what_was_left_out_is_said_and_in_the_report(folder, tmp_path):
    videos = tmp_path / 'videos'
    shutil.copytree(folder / 'videos', videos)
    name = next(path.name for path in videos.iterdir())
    (videos / '.Trashes').mkdir()
    shutil.copy(videos / name, videos / '.Trashes' / 'deleted.mp4')
    (videos / name).rename(videos / f'{name[:-4]}.F4V')
    for other in (f'._{name}', 'notes.txt', 'no extension', os.fsdecode(b'\xff.part')):
        (videos / other).write_bytes(b'x')
    (videos / 'again').symlink_to(videos)
    done = build(folder, videos, tmp_path / 'index', '--json', tmp_path / 'report.json')
    count = len(list((folder / 'videos').iterdir()))
    assert done.returncode == 0 and f'files: {count} added' in done.stdout and '0 cannot be read' in done.stdout
    assert done.stdout.splitlines()[-1] == (
        'left out: 1 linked to a folder that was already searched (again); 1 not fully downloaded (\\udcff.part); '
        f'2 system files (.Trashes, ._{name}); 2 files without a video extension (without 1, .txt 1)')
    assert json.loads((tmp_path / 'report.json').read_text())['left_out'] == {
        'system files': ['.Trashes', f'._{name}'], 'linked to a folder that was already searched': ['again'],
        'without a video extension': ['no extension', 'notes.txt'], 'not fully downloaded': ['\udcff.part']}
    done = build(folder, videos / '.Trashes' / '..' / 'again' / '.Trashes', tmp_path / 'other')
    assert done.returncode == 0 and '1 added' in done.stdout and 'left out' not in done.stdout, done.stderr
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts' / 'a.txt').touch()
    assert_one_line(build(folder, tmp_path / 'texts', tmp_path / 'none'), 'no videos in',
                    'left out: 1 file without a video extension (.txt 1)')


def test_where_the_report_goes_is_looked_at_before_the_work(folder, tmp_path):
    done = build(folder, 'videos', tmp_path / 'new', '--json', tmp_path / 'nowhere' / 'a.json')
    assert_one_line(done, f'no such folder: {tmp_path}/nowhere')
    assert not (tmp_path / 'new').exists()


def test_a_fifo_is_listed_and_nothing_waits_for_it(folder, tmp_path):
    shutil.copytree(folder / 'videos', tmp_path / 'videos')
    os.mkfifo(tmp_path / 'videos' / 'a.mp4')
    done = build(folder, tmp_path / 'videos', tmp_path / 'index')
    assert done.returncode == 0 and "'a.mp4': not a regular file" in done.stdout, done.stderr


def test_the_most_windows_of_a_file_can_be_set(folder, tmp_path):
    done = build(folder, 'videos', tmp_path / 'index', '--window', '0.5', '--max-windows', '2')
    count = len(list((folder / 'videos').iterdir()))
    assert done.returncode == 3 and f'{count} cannot be read' in done.stdout, done.stdout + done.stderr
    assert 'more than 2 windows (--max-windows)' in done.stdout
    done = build(folder, 'videos', tmp_path / 'index', '--max-windows', '0')
    assert done.returncode == 2 and '--max-windows must be at least 1' in done.stderr
    done = run_tool('tools/index_videos.py', 'videos', tmp_path / 'index', '--max-windows', '5', '--features', 'x')
    assert done.returncode == 2 and '--max-windows cannot be used with --features' in done.stderr


def test_features_of_somebody_else_are_taken_in_below_the_folder_that_is_named(folder, tmp_path):
    """Their vectors are checked as those of an index are, and where they say that the videos are doesn't count."""
    done = run_tool('tools/extract_features.py', 'videos', tmp_path / 'f', *MADE_WITH, '--shards', '1', cwd=folder)
    assert done.returncode == 0, done.stderr
    part = tmp_path / 'f' / 'part_0_of_1'
    change(part, "UPDATE meta SET value = '\"/etc\"' WHERE key = 'videos'")
    done = run_tool('tools/index_videos.py', folder / 'videos', tmp_path / 'index', '--features', tmp_path / 'f')
    assert done.returncode == 0, done.stderr
    with closing(SearchIndex(tmp_path / 'index')) as search_index:
        assert search_index.videos == str(folder / 'videos')
    other = run_tool('tools/index_videos.py', tmp_path, tmp_path / 'index', '--features', tmp_path / 'f')
    assert_one_line(other, 'is for the videos in')
    with closing(sqlite3.connect(part / 'catalogue.db')) as db:
        size = db.execute('SELECT length(vector) FROM clips').fetchone()[0]
        db.execute('UPDATE clips SET vector = ?, checksum = NULL', (np.full(size // 4, np.nan, '<f4').tobytes(), ))
        db.execute("UPDATE files SET hash = 'x', checksum = NULL")
        db.commit()
    before = (tmp_path / 'index' / 'catalogue.db').read_bytes()
    done = run_tool('tools/index_videos.py', folder / 'videos', tmp_path / 'index', '--features', tmp_path / 'f')
    assert_one_line(done, 'an embedding is not finite')
    assert (tmp_path / 'index' / 'catalogue.db').read_bytes() == before


def test_ctrl_c_ends_it_with_one_line_and_a_status_wherever_it_comes(folder, tmp_path):
    """While files are looked at, decoded, encoded, kept, and while vectors are written."""
    places = ['indexing.find_videos', 'indexing.hash_file', 'indexing.cut_windows', 'indexing.check_vectors',
              'catalogue.text_checksum', 'database.Database._step', 'vectors.faiss_file.next_checksum']

    def at(place):
        def before():
            import importlib

            from vop_mm.search import database
            if place.endswith('_step'):
                database._STEPS_PER_CHECK = 1  # else a small index takes none
            module, _, name = place.rpartition('.')
            holder = database.Database if name == '_step' else importlib.import_module(f'vop_mm.search.{module}')
            real = getattr(holder, name)

            def call(*args, **kwargs):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
                return real(*args, **kwargs)
            setattr(holder, name, call)
        return before

    for place in places:
        shutil.rmtree(tmp_path / 'index', ignore_errors=True)
        done = run_tool('tools/index_videos.py', 'videos', tmp_path / 'index', *MADE_WITH, cwd=folder, before=at(place))
        assert done.returncode == 130, (place, done.returncode, done.stderr)
        assert 'Traceback' not in done.stderr and done.stderr.strip().splitlines()[-1] == 'interrupted', done.stderr
    assert build(folder, 'videos', tmp_path / 'index').returncode == 0


def test_a_second_start_on_a_new_index_is_told(folder, tmp_path):
    """While the first one makes it, and while it indexes."""
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        command = ('tools/index_videos.py', 'videos', tmp_path / 'index', *MADE_WITH)

        def slowly():
            from vop_mm.search import Catalogue
            real = Catalogue.put_file

            def put_file(self, *args, **kwargs):
                time.sleep(0.1)
                return real(self, *args, **kwargs)
            Catalogue.put_file = put_file

        first = ForkedTool(*command, out=out, err=err, before=slowly, cwd=folder)
        try:
            while not (tmp_path / 'index' / 'lock').exists():
                time.sleep(0.01)
            assert_one_line(run_tool(*command, cwd=folder), 'another process is changing the index')
            assert first.wait() == 0
        finally:
            first.kill()
    with closing(SearchIndex(tmp_path / 'index')) as search_index:
        count = len(list((folder / 'videos').iterdir()))
        assert len(search_index.vectors) == search_index.catalogue.num_clips() == count
