import errno
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.tools import ROOT
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.remote import FileStat, scratch, scratch_file


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    return tmp_path


def test_a_file_is_there_and_gone(place):
    with scratch_file('x', 'videos/a.MP4', 6, iter([b'abc', b'def'])) as path:
        assert Path(path).read_bytes() == b'abcdef' and path.endswith('.MP4')
        assert path.startswith(str(place)) and os.stat(os.path.dirname(path)).st_mode & 0o77 == 0
    assert os.listdir(place) == []
    with pytest.raises(KeyError), scratch_file('x', 'a', None, iter([b'abc'])):
        raise KeyError
    assert os.listdir(place) == []


@pytest.mark.parametrize('name', ['a.mp4/../../b', 'a.' + 'x' * 50, 'a.b c', '.', 'a.\0'])
def test_nothing_of_a_name_but_a_short_extension_is_used(name):
    with scratch_file('x', name, 1, [b'a']) as path:
        assert os.path.basename(path) == 'video'


@pytest.mark.parametrize('size, content, message', [
    (11, b'a' * 11, "can't decode x: 11 bytes are too many to download: the limit is 10 (VOP_MM_MAX_FETCHED)"),
    (None, b'a' * 11, "can't decode x: it is larger than the limit of 10 bytes (VOP_MM_MAX_FETCHED)"),
    (5, b'a' * 6, "can't decode x: expected 5 bytes and has more"),
    (5, b'a' * 4, "can't decode x: expected 5 bytes and has 4"),
])
def test_what_is_refused(place, monkeypatch, size, content, message):
    monkeypatch.setenv('VOP_MM_MAX_FETCHED', '10')
    with pytest.raises(VideoDecodeError) as error, scratch_file('x', 'a', size, [content[:3], content[3:]]):
        pass
    assert str(error.value) == message
    assert os.listdir(place) == []
    with scratch_file('x', 'a', 10, [b'a' * 10]):  # nothing is reserved any more
        pass


def test_a_full_disk_is_no_error_of_the_video(place):
    def chunks():
        yield b'a'
        raise OSError(errno.ENOSPC, 'No space left on device')
    with pytest.raises(OSError, match='No space'), scratch_file('x', 'a', 5, chunks()):
        pass
    assert os.listdir(place) == []


def test_files_of_several_threads_take_turns(place):
    most, held, lock = [], [0], threading.Lock()

    def use(size):
        with scratch_file('x', 'a', size, [b'a' * (size or 2)], limit=10):
            with lock:
                held[0] += size or 2
                most.append(held[0])
            time.sleep(0.02)
            with lock:
                held[0] -= size or 2

    threads = [threading.Thread(target=use, args=(size, )) for size in [6, 4, 5, 10, None, 3, 7, 9]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 8 and max(most) <= 10
    assert os.listdir(place) == []


def test_no_room(monkeypatch):
    monkeypatch.setattr(scratch, '_WAIT', 0.1)
    with scratch_file('x', 'a', 6, [b'a' * 6], limit=10):
        with pytest.raises(VideoDecodeError, match='no space to download it: other files take 6 of 10 bytes'):
            with scratch_file('y', 'a', 6, [], limit=10):
                pass


def test_a_forked_process_has_room_of_its_own():
    def child():
        with scratch_file('y', 'a', 6, [b'a' * 6], limit=10):
            pass

    with scratch_file('x', 'a', 6, [b'a' * 6], limit=10) as path, scratch._room.changed:
        process = multiprocessing.get_context('fork').Process(target=child)
        process.start()
        process.join(20)
        assert process.exitcode == 0 and os.path.isfile(path)


def test_what_a_killed_process_left_is_removed_by_the_next(place):
    code = ('import sys, time, os; from vop_mm.datasets.remote import scratch_file\n'
            'with scratch_file("x", "a", 3, [b"abc"]) as path:\n'
            '    print(path, flush=True); time.sleep(100)')
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True,
                               env=dict(os.environ, TMPDIR=str(place), PYTHONPATH=str(ROOT)))
    path = process.stdout.readline().strip()
    assert Path(path).read_bytes() == b'abc'
    again = 'from vop_mm.datasets.remote import scratch_file\nwith scratch_file("x", "a", 3, [b"abc"]): pass'

    def run_another():
        subprocess.run([sys.executable, '-c', again], check=True,
                       env=dict(os.environ, TMPDIR=str(place), PYTHONPATH=str(ROOT)))

    try:
        run_another()
        assert Path(path).is_file()  # the process lives
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    run_another()
    assert os.listdir(place) == []


@pytest.mark.parametrize('one, other, differ', [
    ((5, 'a'), (5, '"a"'), False), ((5, 'a'), (6, 'a'), True), ((5, 'a'), (5, 'b'), True),
    ((None, 'a'), (5, 'a'), False), ((None, None), (5, 'a'), False), ((5, None), (6, 'a'), True),
])
def test_what_tells_files_apart(one, other, differ):
    assert FileStat(*one).differs_from(FileStat(*other)) is differ
