"""Videos of an S3 server and of a web server into indexes, compared with those of a folder."""
import json
import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from tests.checkpoints import demo_config, write_checkpoint
from tests.s3 import s3_server
from tests.tools import run_tool
from tests.videos import broken_videos, encode_video
from tests.web import web_server
from vop_mm.apis import VideoSearcher
from vop_mm.datasets import VideoSource
from vop_mm.datasets.remote import FileStat
from vop_mm.search import SearchIndex, list_videos
from vop_mm.search.indexing import CHANGED
from vop_mm.search.place import name_of_video

pytestmark = pytest.mark.usefixtures('place')

SECONDS = 2.4


@pytest.fixture(scope='module')
def searcher(tmp_path_factory):
    cfg = demo_config('vop/vop_f_p_demo.py')
    return VideoSearcher(cfg, write_checkpoint(tmp_path_factory.mktemp('c') / 'a.pth', cfg, 0), batch_size=4)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Four videos of 60 frames, one of them in a folder, one that can't be decoded, and another file."""
    folder = tmp_path_factory.mktemp('videos') / 'v'
    (folder / 'sub').mkdir(parents=True)
    for i, name in enumerate(('a.mp4', 'b.mp4', 'sub/c d.mp4', 'e.mkv')):
        encode_video(folder / name, 60, first=100 * i)
    bad = broken_videos(tmp_path_factory.mktemp('broken'))['garbage']
    (folder / 'bad.mp4').write_bytes(open(bad, 'rb').read())
    (folder / 'notes.txt').write_text('no video')
    return folder


def vectors(index) -> dict:
    """Vectors by file and window."""
    with closing(sqlite3.connect(index / 'catalogue.db')) as db:
        rows = db.execute('SELECT path, start, stop, vector FROM clips JOIN files ON files.id = clips.file').fetchall()
    return {(os.fsdecode(path), start, stop): np.frombuffer(vector, '<f4') for path, start, stop, vector in rows}


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for key, vector in found.items():
        np.testing.assert_allclose(vector, expected[key], atol=1e-5)


def counts(report) -> tuple:
    return report.added, report.changed, report.removed, report.unchanged, report.encoded


def test_an_s3_server_gives_what_a_folder_gives(searcher, videos, tmp_path):
    options = dict(window=1., stride=0.5)
    searcher.build_index(videos, tmp_path / 'near', **options)
    with s3_server() as (backend_args, system):
        for path in videos.rglob('*.*'):
            system.pipe_file(f'bucket/v/{path.relative_to(videos)}', path.read_bytes())
        options.update(backend_args=backend_args)
        report = searcher.build_index('s3://bucket/v', tmp_path / 'far', **options)
        assert counts(report) == (4, 0, 0, 0, 16) and [name for name, _ in report.failed] == ['bad.mp4']
        assert_same(vectors(tmp_path / 'far'), vectors(tmp_path / 'near'))
        assert counts(searcher.build_index('s3://bucket/v', tmp_path / 'far', **options)) == (0, 0, 0, 4, 0)
        system.pipe_file('bucket/v/a.mp4', (videos / 'b.mp4').read_bytes())
        system.rm('bucket/v/e.mkv')
        report = searcher.build_index('s3://bucket/v', tmp_path / 'far', **options)
        assert counts(report) == (0, 1, 1, 2, 4)
    hits = searcher.search('a thing', tmp_path / 'far', k=9)  # nobody is asked for anything
    assert {hit.path for hit in hits} == {f's3://bucket/v/{name}' for name in ('a.mp4', 'b.mp4', 'sub/c d.mp4')}


def manifest(folder, entries) -> str:
    (folder / 'videos.jsonl').write_text('\n'.join(map(json.dumps, entries)))
    return str(folder / 'videos.jsonl')


def test_a_manifest_of_a_web_server(searcher, videos, tmp_path):
    searcher.build_index(videos, tmp_path / 'near', window=30.)
    near = vectors(tmp_path / 'near')
    with web_server() as web:
        web.files.update({f'/v/{path.name}': path.read_bytes() for path in videos.iterdir() if path.is_file()})
        url = web.url.replace('://', '://user:hush@')
        list_of = manifest(tmp_path, [
            dict(url=f'{url}/v/a.mp4?token=hush'), dict(url=f'{url}/v/b.mp4', start=1),
            dict(url=f'{url}/v/b.mp4', end=1), dict(url=f'{url}/v/e.mkv', start=5), dict(url=f'{url}/v/gone.mp4')])
        report = searcher.build_index(list_of, tmp_path / 'far', window=30.)
        b = f'{web.url}/v/b.mp4'
        assert counts(report) == (3, 0, 0, 0, 3) and dict(report.failed) == {
            f'{web.url}/v/e.mkv#t=5': 'the clip starts at 5 s, the video ends at 2.40 s',
            f'{web.url}/v/gone.mp4': 'HTTP 404 Not Found'}
        far = vectors(tmp_path / 'far')
        assert [(path, start, round(stop, 2)) for path, start, stop in sorted(far)] == [
            (f'{web.url}/v/a.mp4?token=', 0, SECONDS), (f'{b}#t=,1', 0, 1), (f'{b}#t=1', 1, SECONDS)]
        whole = next(vector for key, vector in far.items() if 'a.mp4' in key[0])
        np.testing.assert_allclose(whole, next(v for key, v in near.items() if key[0] == 'a.mp4'), atol=1e-5)
        assert sum(path == '/v/a.mp4?token=hush' and 'range' not in headers for path, headers in web.requests) == 1
        first, second = (far[key] for key in sorted(far)[1:])
        assert np.abs(first - second).max() > 1e-3
        asked = len(web.requests)
        assert counts(searcher.build_index(list_of, tmp_path / 'far')) == (0, 0, 0, 3, 0)
        assert all(headers.get('range') == 'bytes=0-0' for path, headers in web.requests[asked:] if 'e.mkv' not in path)
    assert b'hush' not in (tmp_path / 'far' / 'catalogue.db').read_bytes()
    hits = searcher.search('a thing', tmp_path / 'far', k=9)
    with closing(SearchIndex(tmp_path / 'far')) as search_index:
        names = {name_of_video(search_index.videos, hit.path) for hit in hits}
    assert names == {key[0] for key in far} == {hit.path for hit in hits}


def test_files_without_marks_are_compared_by_content(searcher, videos, tmp_path):
    with web_server() as web:
        web.etags = False
        web.files['/a.mp4'] = (videos / 'a.mp4').read_bytes()
        list_of = manifest(tmp_path, [dict(url=f'{web.url}/a.mp4')])
        assert counts(searcher.build_index(list_of, tmp_path / 'i')) == (1, 0, 0, 0, 1)
        assert counts(searcher.build_index(list_of, tmp_path / 'i')) == (0, 0, 0, 1, 0)
        web.files['/a.mp4'] = (videos / 'b.mp4').read_bytes()
        assert counts(searcher.build_index(list_of, tmp_path / 'i')) == (0, 1, 0, 0, 1)
        web.failures = [404] * 9  # what is known of a file that can't be had now stays
        report = searcher.build_index(list_of, tmp_path / 'i')
        assert report.clips == 1 and report.failed == [(f'{web.url}/a.mp4', 'HTTP 404 Not Found')]


def test_a_file_that_is_replaced_between_looking_and_reading(searcher, videos, tmp_path, monkeypatch):
    with web_server() as web:
        web.files['/a.mp4'] = (videos / 'a.mp4').read_bytes()
        list_of = manifest(tmp_path, [dict(url=f'{web.url}/a.mp4')])
        duration = type(searcher.prompt_set(None).loader).duration
        assert searcher.build_index(list_of, tmp_path / 'i', window=0.5).clips == 9  # more than a batch: fetched again
        web.files['/a.mp4'] = (videos / 'b.mp4').read_bytes()

        def replace(loader, path):
            web.files['/a.mp4'] = (videos / 'e.mkv').read_bytes()
            return duration(loader, path)

        monkeypatch.setattr(type(searcher.prompt_set(None).loader), 'duration', replace)
        before = vectors(tmp_path / 'i')
        report = searcher.build_index(list_of, tmp_path / 'i')
        assert report.failed == [(f'{web.url}/a.mp4', CHANGED)]
        assert_same(vectors(tmp_path / 'i'), before)


def test_which_names_of_a_store_are_videos():
    class Store(VideoSource):
        def list(self):
            return dict.fromkeys(['b.MP4', 'a/c.webm', 'notes.txt', '../up.mp4', '/top.mp4', 'a/../../d.mkv'],
                                 FileStat(1, 'x'))

    found, refused = list_videos(Store('memory://v'))
    assert list(found) == ['a/c.webm', 'b.MP4']
    assert refused == dict.fromkeys(['../up.mp4', '/top.mp4', 'a/../../d.mkv'], 'the name leads out of the folder')


def test_an_index_keeps_to_its_place(searcher, videos, tmp_path):
    import fsspec
    memory = fsspec.filesystem('memory')
    for place in ('one', 'two'):
        memory.pipe_file(f'/{place}/a.mp4', (videos / 'a.mp4').read_bytes())
    searcher.build_index('memory://one', tmp_path / 'i')
    for other in ('memory://two', videos):
        with pytest.raises(ValueError, match='is for the videos in memory://one, not in'):
            searcher.build_index(other, tmp_path / 'i')
    memory.rm('/one/a.mp4')
    with pytest.raises(ValueError, match='no videos in memory://one'):
        searcher.build_index('memory://one', tmp_path / 'i')
    with pytest.raises(ValueError, match=r'no videos in memory://none'):
        searcher.build_index('memory://none', tmp_path / 'j')
    with pytest.raises(ValueError, match='http://127.0.0.1:1/v cannot be listed: list them in a manifest'):
        searcher.build_index('http://u:hush@127.0.0.1:1/v', tmp_path / 'j')
    assert not (tmp_path / 'j').exists()


def test_the_tool(videos, tmp_path):
    cfg = demo_config('vop/vop_demo.py')
    (tmp_path / 'config.py').write_text(cfg.pretty_text)
    write_checkpoint(tmp_path / 'a.pth', cfg, 0)
    with web_server() as web:
        web.files['/a.mp4'] = (videos / 'a.mp4').read_bytes()
        list_of = manifest(tmp_path, [dict(url=f'{web.url}/a.mp4')])
        done = run_tool('tools/index_videos.py', list_of, 'index', '--config', 'config.py', '--checkpoint', 'a.pth',
                        cwd=tmp_path)
        assert done.returncode == 0 and 'index: 1 clips; files: 1 added' in done.stdout, done.stderr
        done = run_tool('tools/index_videos.py', list_of, 'index', '--backend-args', 'headers={"X": "hush"}',
                        cwd=tmp_path)
        assert done.returncode == 1 and 'headers are for a single server' in done.stderr and 'hush' not in done.stderr


@pytest.mark.parametrize('tool', ['index_videos.py', 'extract_features.py'])
def test_a_wrong_option_is_called_as_the_user_typed_it(tmp_path, tool):
    (tmp_path / 'config.py').touch()
    for option in ('backend-args', 'cfg-options'):
        done = run_tool(f'tools/{tool}', tmp_path, tmp_path / 'out', '--config', tmp_path / 'config.py',
                        f'--{option}', 'anon')
        assert done.returncode == 1 and f"error: ValueError: --{option} takes KEY=VALUE, got 'anon'" in done.stderr


def test_features_of_an_s3_server_and_of_a_manifest_are_those_of_an_index(searcher, videos, tmp_path):
    searcher.build_index(videos, tmp_path / 'near', window=1.)
    cfg = demo_config('vop/vop_f_p_demo.py')
    (tmp_path / 'config.py').write_text(cfg.pretty_text)
    made_with = '--config', 'config.py', '--checkpoint', searcher.prompt_set().checkpoint, '--shards', '2'
    with s3_server() as (backend_args, system), web_server() as web:
        for path in videos.rglob('*.*'):
            system.pipe_file(f'bucket/v/{path.relative_to(videos)}', path.read_bytes())
            web.files[f'/{path.relative_to(videos)}'] = path.read_bytes()
        list_of = manifest(tmp_path, [dict(url=f'{web.url}/{name}') for name in ('a.mp4', 'b.mp4', 'gone.mp4')])
        options = '--backend-args', *(f'{key}={value}' for key, value in backend_args.items())
        for place, more, said in (('s3://bucket/v', options, '16 encoded now; 1 files'),
                                  (list_of, (), '8 encoded now; 1 files')):
            out = f'features {len(more)}'
            done = run_tool('tools/extract_features.py', place, out, *made_with, '--window', '1', *more, cwd=tmp_path)
            assert done.returncode == 0 and said in ' '.join(done.stdout.split()), done.stdout + done.stderr
            assert 'hush' not in done.stdout + done.stderr
            done = run_tool('tools/index_videos.py', place, f'index {len(more)}', '--features', out, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        done = run_tool('tools/extract_features.py', tmp_path / 'none', 'x', *made_with, cwd=tmp_path)
        assert done.returncode == 1 and f'video folder not found: {tmp_path}/none' in done.stderr
    near = vectors(tmp_path / 'near')
    assert_same(vectors(tmp_path / f'index {len(options)}'), near)
    assert_same({(path.removeprefix(f'{web.url}/'), *times): vector
                 for (path, *times), vector in vectors(tmp_path / 'index 0').items()},
                {key: vector for key, vector in near.items() if key[0] in ('a.mp4', 'b.mp4')})
