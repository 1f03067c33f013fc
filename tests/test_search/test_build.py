"""Folders of real videos into indexes, killed, changed and compared with a build from scratch."""
import importlib.util
import os
import shutil
import signal
import sqlite3
import struct
import tempfile
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from mmengine.config import Config

from tests.checkpoints import demo_config, write_checkpoint
from tests.tools import ForkedTool
from tests.videos import broken_videos, encode_video, spoil_frames
from vop_mm.apis import VideoSearcher
from vop_mm.datasets.decoding import PyAVReader
from vop_mm.search import SearchIndex
from vop_mm.search.search_index import IndexMismatchError

BACKENDS = ('faiss', 'milvus') if importlib.util.find_spec('milvus_lite') else ('faiss', )


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A config and a checkpoint."""
    folder, cfg = tmp_path_factory.mktemp('c'), demo_config('vop/vop_f_p_demo.py')
    cfg.dump(folder / 'config.py')
    return folder / 'config.py', write_checkpoint(folder / 'a.pth', cfg, 0)


@pytest.fixture(scope='module')
def searcher(model):
    config, checkpoint = model
    return VideoSearcher(Config.fromfile(config), checkpoint, batch_size=8)


def contents(index: Path) -> tuple[dict, dict]:
    """Files, and vectors by file and window, as the catalogue has them; the index of vectors must have the same."""
    search_index = SearchIndex(index)
    files = {path: (state.hash, state.error) for path, state in search_index.catalogue.files().items()}
    rows = sqlite3.connect(index / 'catalogue.db').execute(
        'SELECT clips.id, path, start, stop, vector FROM clips JOIN files ON files.id = clips.file').fetchall()
    clips = {(os.fsdecode(path), start, stop): np.frombuffer(vector, '<f4') for _, path, start, stop, vector in rows}
    assert len(clips) == len(rows) == len(search_index.vectors)
    assert not search_index.catalogue.num_changes()
    for number, path, start, stop, _ in rows[:20] + rows[-20:]:
        scores, found = search_index.vectors.search(clips[os.fsdecode(path), start, stop][None], 20)
        same = found[0][scores[0] > 1 - 1e-5]
        assert number in same
    search_index.close()
    return files, clips


def assert_same(index: Path, other: Path) -> None:
    files, clips = contents(index)
    expected_files, expected_clips = contents(other)
    assert files == expected_files
    assert clips.keys() == expected_clips.keys()
    for key, vector in clips.items():
        np.testing.assert_allclose(vector, expected_clips[key], atol=1e-5)


def variant(source: Path, path: Path, number: int) -> None:
    """The same pictures in a file of other content: with an empty box of an mp4 behind them."""
    path.write_bytes(source.read_bytes() + struct.pack('>I4sQ', 16, b'free', number))


def concatenate(sources: list[Path], path: Path, times: int) -> None:
    frames = []
    for source in sources:
        with av.open(str(source)) as container:
            frames += [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    encode_video(path, frames * times, fps=10)


def build_until(model: tuple[Path, Path], videos: Path, index: Path, backend: str, files: int) -> int:
    """Build with a tool that is killed when so many files are in the index; how many are in it then.

    Not in a fork of this process: where another test has used Milvus, gRPC would wait there for ever.
    """
    with tempfile.TemporaryFile('w+') as log:
        tool = ForkedTool('tools/index_videos.py', videos, index, '--config', model[0], '--checkpoint', model[1],
                          '--window', 3, '--stride', 1, '--backend', backend, '--batch-size', 8, out=log, err=log)
        try:
            while _count(index, 'files') < files:
                if tool.poll() is not None:
                    log.seek(0)
                    pytest.fail(f'it was not killed on the way: {log.read()}')
        finally:
            tool.kill()
    return _count(index, 'files')


def _count(index: Path, table: str) -> int:
    try:
        with sqlite3.connect(f'file:{index}/catalogue.db?mode=ro', uri=True, timeout=60) as db:
            return db.execute(f'SELECT count(*) FROM {table}').fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_killed_twice_continued_and_changed(model, searcher, small_demo, tmp_path):
    """300 clips, 10 broken and 3 long ones, in every back end."""
    count = 300
    sources = sorted((small_demo / 'videos').glob('*.mp4'))
    videos, indexes = tmp_path / 'videos', {name: tmp_path / name for name in BACKENDS}
    (videos / 'below').mkdir(parents=True)
    for number in range(count):
        variant(sources[number % len(sources)], videos / ('below' if number % 2 else '') / f'{number}.mp4', number)
    broken = []
    for name, path in broken_videos(tmp_path).items():
        shutil.move(path, videos / f'broken_{name}.mp4')
        broken.append(f'broken_{name}.mp4')
    for number in range(10 - len(broken)):
        broken.append(f'broken_{number}.mkv')
        (videos / broken[-1]).write_bytes(b'nothing' * number)
    for number in range(3):
        concatenate(sources[5 * number:5 * number + 5], videos / f'long_{number}.mp4', 1)
    for name, index in indexes.items():
        first = build_until(model, videos, index, name, count // 4)
        second = build_until(model, videos, index, name, count // 2)
        assert count // 4 <= first < second < count
        known = _count(index, 'clips')
        report = searcher.build_index(videos, index)
        assert report.encoded == report.clips - known  # nothing twice
        assert sorted(path for path, _ in report.failed) == sorted(broken)
        assert all(reason for _, reason in report.failed)
        assert report.clips >= count + 3 * 4

    for number in range(0, 10, 2):
        (videos / f'{number}.mp4').unlink()
        variant(sources[number], videos / f'new_{number}.mp4', 1000 + number)
        variant(sources[-number - 1], videos / 'below' / f'{number + 1}.mp4', 2000 + number)
    os.utime(videos / '10.mp4', (1, 1))  # another time, the same content
    (videos / '12.mp4').rename(videos / 'renamed.mp4')
    searcher.build_index(videos, tmp_path / 'scratch', window=3, stride=1)
    vector = searcher.encode_video(videos / 'new_4.mp4')[0]
    for index in indexes.values():
        again = searcher.build_index(videos, index)
        assert (again.added, again.changed, again.removed) == (6, 5, 6)
        assert again.encoded == 10 and again.clips == report.clips
        assert_same(index, tmp_path / 'scratch')
        last = searcher.build_index(videos, index)
        assert last.added == last.changed == last.removed == last.encoded == 0
        search_index = SearchIndex(index)
        hits = search_index.search(vector, k=1000)
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert len({hit.path for hit in hits}) == len(hits) == count + 3
        search_index.close()


def test_a_hit_names_the_moment_of_a_long_video(searcher, small_demo, tmp_path):
    sources = sorted((small_demo / 'videos').glob('*.mp4'))[:4]
    (tmp_path / 'videos').mkdir()
    concatenate(sources, tmp_path / 'videos' / 'film.mp4', 1)
    with av.open(str(sources[0])) as container:
        frames = sum(1 for _ in container.decode(video=0))
    length = frames / 10
    searcher.build_index(tmp_path / 'videos', tmp_path / 'index', window=length, stride=length / 2)
    for number, source in enumerate(sources):
        hits = searcher.search(video=source, index=tmp_path / 'index', k=3, merge=False)
        assert (hits[0].start, hits[0].end) == pytest.approx((number * length, (number + 1) * length))
        assert hits[0].score > 0.99 and len(hits) == 3
        merged = searcher.search(video=source, index=tmp_path / 'index', k=3)
        assert merged == hits[:1]


@pytest.mark.parametrize('name', ['film.mp4', 'film.mkv'])
def test_a_bad_second_costs_its_windows_alone(searcher, tmp_path, name):
    (tmp_path / 'videos').mkdir()
    path = encode_video(tmp_path / 'videos' / name, 240, fps=12, max_b_frames=0,  # a key frame each second
                        options={'x264-params': 'scenecut=0'})
    spoil_frames(path, slice(123, 125))
    report = searcher.build_index(tmp_path / 'videos', tmp_path / 'index', window=4, stride=2)
    (partly, why), = report.partly
    assert partly == name and why.startswith('2 of 9 windows can\'t be read: ') and not report.failed
    with closing(SearchIndex(tmp_path / 'index')) as search_index:
        moments, _ = search_index.catalogue.clips_of_file(name)
    assert [start for start, _ in moments] == pytest.approx([0, 2, 4, 6, 12, 14, 16], abs=.1)
    assert searcher.build_index(tmp_path / 'videos', tmp_path / 'index').unchanged == 1
    spoil_frames(path, slice(0, None))
    report = searcher.build_index(tmp_path / 'videos', tmp_path / 'index')
    assert [path for path, _ in report.failed] == [name] and report.clips == 0 and not report.partly


@pytest.mark.parametrize(('crashes', 'lost'), [((10, 11), 2), ((0, 100), 9)])
def test_a_second_that_crashes_the_decoder_costs_its_windows_alone(searcher, tmp_path, monkeypatch, crashes, lost):
    (tmp_path / 'videos').mkdir()
    encode_video(tmp_path / 'videos' / 'film.mp4', 240, fps=12)
    decode = PyAVReader.get_batch

    def get_batch(self, indices):
        if any(crashes[0] <= time < crashes[1] for time in self.timestamps()[indices]):
            os.kill(os.getpid(), signal.SIGSEGV)
        return decode(self, indices)

    monkeypatch.setattr(PyAVReader, 'get_batch', get_batch)
    searcher.prompt_set(next(iter(searcher.prompts))).loader.close()  # its child is from before
    report = searcher.build_index(tmp_path / 'videos', tmp_path / 'index', window=4, stride=2)
    searcher.prompt_set(next(iter(searcher.prompts))).loader.close()
    (name, why), = report.failed if lost == 9 else report.partly
    assert name == 'film.mp4' and why.endswith('the decoder crashed: SIGSEGV') and report.clips == 9 - lost


def test_lost_vectors_are_taken_from_the_catalogue(searcher, small_demo, tmp_path):
    index = tmp_path / 'index'
    searcher.build_index(small_demo / 'videos', index)
    before = contents(index)
    (index / 'vectors.faiss').unlink()
    with pytest.raises(ValueError, match='is not finished, or its vectors are lost'):
        searcher.from_index(index).search('a square', index)
    assert searcher.build_index(small_demo / 'videos', index).encoded == 0
    assert contents(index)[0] == before[0]
    assert searcher.search('a square', index, k=3)


def test_clusters_looked_at_may_change(searcher, small_demo, tmp_path):
    index, backend = tmp_path / 'index', dict(type='FaissIndex', exact_up_to=5, num_probes=1)
    searcher.build_index(small_demo / 'videos', index, backend=backend)
    first = searcher.search('a square', index, k=100)
    report = searcher.build_index(small_demo / 'videos', index, backend=dict(num_probes=1000))
    assert report.encoded == 0 and report.clips > len(first)
    assert len(searcher.search('a square', index, k=100)) == report.clips  # the index is read again, and they are kept
    with pytest.raises(ValueError, match='num_probes must be at least 1'):
        searcher.build_index(small_demo / 'videos', index, backend=dict(num_probes=0))
    with pytest.raises(IndexMismatchError, match='which cannot be changed: create another'):
        searcher.build_index(small_demo / 'videos', index, backend=dict(nprobe=5))
    assert SearchIndex(index).backend == dict(backend, num_probes=1000)


def test_nothing_changes_where_indexing_is_refused(searcher, small_demo, tmp_path):
    index, videos, empty = tmp_path / 'index', tmp_path / 'videos', tmp_path / 'empty'
    videos.mkdir()
    empty.mkdir()
    shutil.copy(next((small_demo / 'videos').glob('*.mp4')), videos / 'a.mp4')
    for call, error, message in (
            (lambda: searcher.build_index(empty, index), ValueError, 'no videos in'),
            (lambda: searcher.build_index(tmp_path / 'nowhere', index), NotADirectoryError, 'video folder not found'),
            (lambda: searcher.build_index(videos, index, window=-1), ValueError, 'window and stride must be positive'),
            (lambda: searcher.build_index(videos, videos), FileExistsError, 'is not a search index'),
            (lambda: searcher.build_index(videos, index, backend=dict(
                type='MilvusIndex', uri='http://127.0.0.1:9', timeout=2)), ConnectionError, 'cannot be reached')):
        with pytest.raises(error, match=message):
            call()
        assert not index.exists() and os.listdir(videos) == ['a.mp4']
    searcher.build_index(videos, index)
    before = contents(index)
    with pytest.raises(IndexMismatchError, match='window 30.0, not 5'):
        searcher.build_index(videos, index, window=5)
    with pytest.raises(IndexMismatchError, match='which cannot be changed: create another'):
        searcher.build_index(videos, index, backend=dict(type='MilvusIndex'))
    with pytest.raises(ValueError, match='is for the videos in'):
        searcher.build_index(empty, index)
    with SearchIndex(index).locked(), pytest.raises(BlockingIOError, match='another process is changing the index'):
        searcher.build_index(videos, index)
    (videos / 'a.mp4').unlink()
    with pytest.raises(ValueError, match='the index is unchanged'):  # a disk that isn't mounted is an empty folder
        searcher.build_index(videos, index)
    assert contents(index)[0] == before[0]


def test_killed_while_an_index_is_made(searcher, small_demo, tmp_path, monkeypatch):
    index = tmp_path / 'index'

    def die(*args):
        os._exit(1)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, 'replace', die)
        searcher.build_index(small_demo / 'videos', index, backend=dict(type='FaissIndex'))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert os.listdir(index) and not SearchIndex.exists(index)
    report = searcher.build_index(small_demo / 'videos', index)
    assert report.added == report.clips == len(list((small_demo / 'videos').iterdir()))
    assert not list(index.glob('.*'))


def test_names_of_all_kinds_and_files_that_can_not_be_read(searcher, small_demo, tmp_path):
    videos, index = tmp_path / 'videos', tmp_path / 'index'
    videos.mkdir()
    source = next((small_demo / 'videos').glob('*.mp4'))
    names = ['a b\n.mp4', "'; DROP TABLE files; --.MP4", '[red]x[red].mp4', 'é\u4e2d.mp4', os.fsdecode(b'\xff.mp4')]
    for number, name in enumerate(names):
        variant(source, videos / name, number)
    (videos / 'gone.mp4').symlink_to(tmp_path / 'nothing')
    (videos / 'notes.txt').write_text('no video')
    report = searcher.build_index(videos, index)
    assert report.failed == [('gone.mp4', 'linked to nothing')]
    assert report.clips == report.added == len(names)
    assert {Path(hit.path).name for hit in searcher.search('a', index, k=9)} == set(names)


def test_a_folder_that_was_moved_is_followed(searcher, small_demo, tmp_path):
    shutil.copytree(small_demo / 'videos', tmp_path / 'old')
    searcher.build_index(tmp_path / 'old', tmp_path / 'index')
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert searcher.build_index(tmp_path / 'new', tmp_path / 'index').encoded == 0
    assert all(Path(hit.path).is_file() for hit in searcher.search('a square', tmp_path / 'index'))
