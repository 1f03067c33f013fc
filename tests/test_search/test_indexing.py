"""Files that change, are no files, or say too much, while a folder is indexed. No model: a clip's embedding is made of
the bytes that were read."""
import hashlib
import os
import re
import shutil
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.indexes import DIM, make_index
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.video_files import find_videos
from vop_mm.search import IndexOptions, SearchIndex, index_folder
from vop_mm.search.indexing import CHANGED


def embed(content: bytes) -> np.ndarray:
    vector = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)[:DIM].astype(np.float32) + 1
    return vector / np.linalg.norm(vector)


class Loader:
    """Frames that are the embedding itself; ``before`` is called with a path before it is read."""

    def __init__(self, before=lambda path, what: None, after=lambda path, what: None, seconds=2.):
        self.before, self.after, self.seconds = before, after, seconds

    def duration(self, path):
        self.before(path, 'duration')
        self.after(path, 'duration')
        return self.seconds

    def load_clips(self, path, clips):
        self.before(path, 'load')
        try:
            vector = torch.from_numpy(embed(Path(path).read_bytes()))
        except FileNotFoundError:
            raise VideoDecodeError(path, 'no such file') from None
        self.after(path, 'load')
        return [(vector.expand(1, 1, 1, -1), 1) for _ in clips]


def index(folder, loader, **more):
    with closing(SearchIndex(folder)) as search_index:
        return index_folder(search_index, loader, lambda frames, num_frames: frames.flatten(1).numpy(),
                            IndexOptions(**more))


@pytest.fixture
def folder(tmp_path):
    """``one.mp4`` of content A beside an index that knows nothing, and content B elsewhere."""
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'b').write_bytes(b'B' * 5000)
    (tmp_path / 'videos' / 'one.mp4').write_bytes(b'A' * 5000)
    make_index(tmp_path / 'index', tmp_path / 'videos', 0)
    return tmp_path


def vectors(folder):
    with closing(SearchIndex(folder / 'index')) as search_index:
        return {path: (state, search_index.catalogue.clips_of_file(path)[1])
                for path, state in search_index.catalogue.files().items()}


def keep_times(path, change):
    status = os.stat(path)
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path, b):
    shutil.copy(b, path + '.new')
    os.replace(path + '.new', path)


def written(path, b):
    Path(path).write_bytes(b.read_bytes())


def replaced_for_a_while(path, b):
    os.rename(path, path + '.old')
    shutil.copy(b, path)


def and_back(path, b):
    if os.path.exists(path + '.old'):
        os.replace(path + '.old', path)


SWAPS = {
    'replaced': (replaced, None),
    'replaced, with its time': (lambda path, b: keep_times(path, lambda: replaced(path, b)), None),
    'written over': (written, None),
    'written over, with its time': (lambda path, b: keep_times(path, lambda: written(path, b)), None),
    'another for a while': (replaced_for_a_while, and_back),
    'gone': (lambda path, b: os.rename(path, path + '.old'), None),
}


@pytest.mark.parametrize('when', ['duration', 'load'])
@pytest.mark.parametrize('how', SWAPS)
def test_a_file_that_changes_between_its_hash_and_its_frames_is_left_for_the_next_time(folder, how, when):
    swap, back = SWAPS[how]
    one, first = folder / 'videos' / 'one.mp4', []

    def before(path, what):
        if what == when and not first:
            first.append(path)
            swap(path, folder / 'b')

    def after(path, what):
        if back and what == when:
            back(path, folder / 'b')

    time.sleep(0.02)  # a file system's clock ticks 250 times a second
    loader = Loader(before, after)
    report = index(folder / 'index', loader)
    assert (report.added, report.clips, report.failed) == (0, 0, [('one.mp4', CHANGED)])
    assert not vectors(folder)
    # next time, and when the first content is there again under two names, each has its own vector
    for content, names in ((b'B' * 5000, ['one.mp4']), (b'A' * 5000, ['one.mp4', 'two.mp4'])):
        for name in names:
            (folder / 'videos' / name).write_bytes(content)
        index(folder / 'index', Loader())
        for name in names:
            np.testing.assert_allclose(vectors(folder)[name][1], [embed(content)], atol=1e-6)
    assert one.exists()


def test_a_file_that_is_written_while_it_is_hashed_is_left(folder, monkeypatch):
    from vop_mm.search import indexing
    real = indexing.hash_file

    def hash_file(file, alive):
        digest = real(file, alive)
        with (folder / 'videos' / 'one.mp4').open('ab') as other:
            other.write(b'more')
        return digest

    monkeypatch.setattr(indexing, 'hash_file', hash_file)
    assert index(folder / 'index', Loader()).failed == [('one.mp4', CHANGED)] and not vectors(folder)


def test_what_is_known_of_a_file_that_changes_stays(folder):
    index(folder / 'index', Loader())
    before = vectors(folder)
    (folder / 'videos' / 'one.mp4').write_bytes(b'C' * 5000)
    time.sleep(0.02)
    report = index(folder / 'index', Loader(lambda path, what: what == 'load' and replaced(path, folder / 'b')))
    assert report.failed == [('one.mp4', CHANGED)] and report.clips == 1
    after = vectors(folder)
    assert after['one.mp4'][0] == before['one.mp4'][0]
    np.testing.assert_array_equal(after['one.mp4'][1], before['one.mp4'][1])
    report = index(folder / 'index', Loader())
    assert (report.changed, report.failed) == (1, [])
    np.testing.assert_allclose(vectors(folder)['one.mp4'][1], [embed(b'B' * 5000)], atol=1e-6)


def test_a_link_that_is_turned_for_a_while_is_noticed(folder):
    one = folder / 'videos' / 'one.mp4'
    one.rename(folder / 'a')
    one.symlink_to(folder / 'a')

    def turn(target):
        (folder / 'videos' / 'link').symlink_to(target)
        os.replace(folder / 'videos' / 'link', one)

    report = index(folder / 'index', Loader(lambda path, what: what == 'load' and turn(folder / 'b'),
                                            lambda path, what: what == 'load' and turn(folder / 'a')))
    assert report.failed == [('one.mp4', CHANGED)] and not vectors(folder)


def test_a_long_file_that_changes_between_its_parts_is_left_as_a_whole(folder):
    """Its first windows were encoded already, in the same batch as those of other files."""
    (folder / 'videos' / 'two.mp4').write_bytes(b'D' * 5000)
    loads = []

    def before(path, what):
        if what == 'load' and path.endswith('one.mp4'):
            loads.append(path)
            if len(loads) == 3:
                written(path, folder / 'b')

    report = index(folder / 'index', Loader(before, seconds=9.), batch_size=3)
    assert report.failed == [('one.mp4', CHANGED)] and list(vectors(folder)) == ['two.mp4']
    assert len(vectors(folder)['two.mp4'][1]) == report.clips == 8


def test_what_is_no_file_is_not_opened(folder):
    """A FIFO that nobody writes to made indexing wait for ever, with the lock in its hands."""
    os.mkfifo(folder / 'videos' / 'fifo.mp4')
    (folder / 'videos' / 'folder.mp4').mkdir()
    (folder / 'videos' / 'folder.mp4' / 'inside.mp4').write_bytes(b'E')
    (folder / 'videos' / 'device.mkv').symlink_to('/dev/zero')
    (folder / 'videos' / 'link.mp4').symlink_to(folder / 'videos' / 'fifo.mp4')
    expected = dict.fromkeys(('device.mkv', 'fifo.mp4', 'link.mp4', 'socket.mp4'), 'not a regular file')
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(folder / 'videos')
        try:
            server.bind('socket.mp4')
        finally:
            os.chdir(here)
        found = find_videos(folder / 'videos')
        assert found.videos == ['folder.mp4/inside.mp4', 'one.mp4'] and found.unreadable() == expected
        report = index(folder / 'index', Loader())
        assert report.left_out == {'named like a video, but a folder': ['folder.mp4']}
    assert report.added == report.clips == 2 and dict(report.failed) == expected
    (folder / 'videos' / 'folder.mp4' / 'inside.mp4').unlink()  # of a folder that can be read
    (folder / 'videos' / 'one.mp4').unlink()
    os.mkfifo(folder / 'videos' / 'one.mp4')  # what was known of it is gone
    (folder / 'videos' / 'more.mp4').write_bytes(b'F')
    report = index(folder / 'index', Loader())
    assert (report.added, report.removed, report.clips) == (1, 2, 1) and list(vectors(folder)) == ['more.mp4']


def test_a_linked_folder_is_indexed_and_keeps_its_videos_wherever_it_moves(folder):
    """A folder that was moved to another disk and linked back in its place was forgotten without a word."""
    videos, disk = folder / 'videos', folder / 'disk'
    (videos / 'holiday' / 'day 1').mkdir(parents=True)
    disk.mkdir()
    for name in ('holiday/b.mp4', 'holiday/day 1/c.mp4'):
        (videos / name).write_bytes(name.encode())
    first = index(folder / 'index', Loader())
    assert first.encoded == first.clips == 3
    before = vectors(folder)
    (videos / 'holiday').rename(disk / 'holiday')
    (videos / 'holiday').symlink_to(disk / 'holiday')
    again = index(folder / 'index', Loader())
    assert (again.unchanged, again.encoded, again.removed, again.clips) == (3, 0, 0, 3)
    # the disk is not there: nothing is forgotten, and all is said
    disk.rename(folder / 'elsewhere')
    again = index(folder / 'index', Loader())
    assert (again.unchanged, again.removed, again.clips) == (1, 0, 3) and again.failed == [
        ('holiday', 'linked to nothing')]
    assert vectors(folder).keys() == before.keys()
    (folder / 'elsewhere').rename(disk)
    again = index(folder / 'index', Loader())
    assert (again.unchanged, again.encoded, again.clips) == (3, 0, 3) and not again.failed
    # the link itself is gone: so are its videos
    (videos / 'holiday').unlink()
    assert index(folder / 'index', Loader()).removed == 2


@pytest.mark.parametrize('name', ['.mp4', '/more.mp4'])
def test_a_folder_that_can_not_be_listed_is_not_forgotten_and_others_are(folder, monkeypatch, name):
    """Not those either whose names begin as its name does."""
    videos = folder / 'videos'
    (videos / 'secret' / 'deep').mkdir(parents=True)
    kept, gone = ['one.mp4', 'secret/b.mp4', 'secret/deep/c.mp4'], f'secret2{name}'
    (videos / gone).parent.mkdir(exist_ok=True)
    for path in (*kept[1:], gone):
        (videos / path).write_bytes(path.encode())
    assert index(folder / 'index', Loader()).clips == 4
    (videos / gone).unlink()
    real = os.scandir

    def scandir(path):
        if str(path).endswith('secret'):
            raise OSError(107, 'Transport endpoint is not connected', path)
        return real(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    report = index(folder / 'index', Loader())
    assert report.failed == [('secret', 'cannot be listed: Transport endpoint is not connected')]
    assert (report.removed, report.clips) == (1, 3) and list(vectors(folder)) == kept


def test_a_link_whose_file_is_away_keeps_its_vectors(folder):
    (folder / 'videos' / 'link.mp4').symlink_to(folder / 'b')
    assert index(folder / 'index', Loader()).clips == 2
    (folder / 'b').rename(folder / 'away')
    report = index(folder / 'index', Loader())
    assert (report.removed, report.clips) == (0, 2) and report.failed == [('link.mp4', 'linked to nothing')]


def test_what_was_indexed_and_is_rubbish_is_forgotten(folder):
    (folder / 'videos' / 'film').mkdir()
    (folder / 'videos' / 'film' / 'deleted.mp4').write_bytes(b'D')
    assert index(folder / 'index', Loader()).clips == 2
    (folder / 'videos' / 'film').rename(folder / 'videos' / '.Trashes')
    (folder / 'videos' / 'notes.txt').write_bytes(b'')
    report = index(folder / 'index', Loader())
    assert (report.removed, report.clips) == (1, 1) and report.left_out == {
        'system files': ['.Trashes'], 'without a video extension': ['notes.txt']}


def test_a_file_that_becomes_a_fifo_after_it_was_listed(folder, monkeypatch):
    from vop_mm.search import indexing
    real = indexing.find_videos

    def find_videos(where):
        listed = real(where)
        (folder / 'videos' / 'one.mp4').unlink()
        os.mkfifo(folder / 'videos' / 'one.mp4')
        return listed

    monkeypatch.setattr(indexing, 'find_videos', find_videos)
    report = index(folder / 'index', Loader())
    assert report.failed == [('one.mp4', 'not a regular file')] and not report.clips


def test_a_file_that_never_answers_is_left_behind(folder, monkeypatch):
    """As one of a network drive whose server is gone: the others are indexed, and what was known of it stays."""
    from vop_mm.search import indexing
    from vop_mm.utils import stalls
    (folder / 'videos' / 'stale.mp4').write_bytes(b'S' * 5000)
    assert index(folder / 'index', Loader()).clips == 2
    real, woken = indexing.hash_file, threading.Event()

    def hash_file(file, alive):
        if os.path.basename(file.name).startswith('stale'):
            woken.wait()
        return real(file, alive)

    monkeypatch.setattr(indexing, 'hash_file', hash_file)
    monkeypatch.setattr(stalls, 'PATIENCE', 0.5)
    os.utime(folder / 'videos' / 'stale.mp4', (1, 1))
    for name in ('stale_new.mp4', 'two.mp4'):
        (folder / 'videos' / name).write_bytes(name.encode())
    start = time.monotonic()
    report = index(folder / 'index', Loader())
    assert report.failed == [(name, 'no answer for 0.5 s') for name in ('stale.mp4', 'stale_new.mp4')]
    assert (report.added, report.removed, report.clips) == (1, 0, 3) and time.monotonic() - start < 20
    woken.set()
    report = index(folder / 'index', Loader())
    assert (report.added, report.unchanged, report.clips) == (1, 3, 4) and not report.failed


@pytest.mark.parametrize('seconds, why', [(1e6, 'more than 10000 windows .--max-windows'), (np.inf, 'inf seconds'),
                                          (float('nan'), 'nan seconds'), (-5., '-5 seconds')])
def test_a_file_that_says_it_takes_days_is_not_cut_into_windows(folder, seconds, why):
    """A file of 4 kB gave 66,667 of them."""
    report = index(folder / 'index', Loader(seconds=seconds))
    assert not report.clips and re.search(why, dict(report.failed)['one.mp4'])
    assert index(folder / 'index', Loader(seconds=1000.), max_windows=998).failed
    assert index(folder / 'index', Loader(seconds=1000.), max_windows=999).clips == 999


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e30, 0.])
def test_embeddings_of_a_broken_model_are_refused(folder, value):
    """They were indexed without a word, and found by nothing."""
    with closing(SearchIndex(folder / 'index')) as search_index:
        with pytest.raises(ValueError, match='an embedding (is not finite|has norm)'):
            index_folder(search_index, Loader(),
                         lambda frames, num_frames: np.full((len(frames), DIM), value, np.float32))
        assert not search_index.catalogue.files()
    assert index(folder / 'index', Loader()).clips == 1


def test_reasons_of_any_letters_are_kept(folder):
    def fail(path, what):
        raise VideoDecodeError(path, 'b\udcff\0\x1b[31m')

    report = index(folder / 'index', Loader(fail))
    assert report.failed == [('one.mp4', 'b\\udcff\0\x1b[31m')]
    assert vectors(folder)['one.mp4'][0].error == 'b\\udcff\0\x1b[31m'
