"""Lock files: one process at a time, and nothing is harmed by opening one."""
import errno
import fcntl
import os
import subprocess
import sys

import pytest

from vop_mm.utils.locks import locked

_HOLD = '''
import sys
from vop_mm.utils.locks import locked
with locked(sys.argv[1], 'taken'):
    print('held', flush=True)
    sys.stdin.read()
'''


def test_a_second_process_is_refused_until_the_first_one_ends(tmp_path):
    path = tmp_path / 'lock'
    child = subprocess.Popen([sys.executable, '-c', _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b'held\n'
    with pytest.raises(BlockingIOError, match='^taken by another$'), locked(path, 'taken by another'):
        pass
    child.kill()
    child.wait()
    with locked(path, 'taken'):
        pass


def test_a_second_thread_of_the_process_is_refused(tmp_path):
    with locked(tmp_path / 'lock', 'taken'), pytest.raises(BlockingIOError), locked(tmp_path / 'lock', 'taken'):
        pass
    with locked(tmp_path / 'lock', 'taken'):
        pass


def held_elsewhere(path):
    """Whether another process finds it locked."""
    return subprocess.run([sys.executable, '-c', _HOLD, str(path)], stdin=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode != 0


def test_being_refused_does_not_cost_the_holder_its_lock(tmp_path):
    """A POSIX lock ends when its process closes any handle of the file, also by another name of its folder."""
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'folder')
    with locked(tmp_path / 'folder' / 'lock', 'taken'):
        for name in ('folder', 'link'):
            with pytest.raises(BlockingIOError), locked(tmp_path / name / 'lock', 'taken'):
                pass
        assert held_elsewhere(tmp_path / 'folder' / 'lock')
    assert not held_elsewhere(tmp_path / 'folder' / 'lock')


def test_a_forked_child_does_not_keep_it(tmp_path):
    with locked(tmp_path / 'lock', 'taken'):
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writes)
            os.read(reads, 1)
            os._exit(0)
        os.close(reads)
    assert not held_elsewhere(tmp_path / 'lock')
    os.close(writes)
    os.waitpid(child, 0)


def test_a_file_system_without_locks_keeps_nobody_away(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', no_locks)
    with locked(tmp_path / 'lock', 'taken'):
        pass


def test_what_is_in_the_file_stays(tmp_path):
    path = tmp_path / 'lock'
    path.write_text('not a lock')
    with locked(path, 'taken'):
        pass
    assert path.read_text() == 'not a lock'


def test_a_link_is_not_followed(tmp_path):
    path, foreign = tmp_path / 'lock', tmp_path / 'foreign'
    path.symlink_to(foreign)
    with pytest.raises(OSError), locked(path, 'taken'):
        pass
    assert not foreign.exists()


def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / 'lock')
    with pytest.raises(OSError, match='not a regular file'), locked(tmp_path / 'lock', 'taken'):
        pass
