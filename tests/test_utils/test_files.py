"""Files are whole or not there."""
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from vop_mm.utils.files import atomic_path, atomic_write, remove_leftovers, temporary_folder


def test_writes_bytes_and_text_with_the_usual_permissions(tmp_path):
    umask = os.umask(0)
    os.umask(umask)
    with atomic_write(tmp_path / 'a') as file:
        file.write(b'bytes')
    with atomic_write(tmp_path / 'b', 'w') as file:
        file.write('schön')
    assert (tmp_path / 'a').read_bytes() == b'bytes'
    assert (tmp_path / 'b').read_text(encoding='utf-8') == 'schön'
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_leaves_the_old_file_and_nothing_beside(tmp_path):
    path = tmp_path / 'a'
    path.write_text('old')
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b'half')
        raise RuntimeError
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a']


_KILLED = '''
import sys, time
from vop_mm.utils.files import atomic_write, temporary_folder
path = sys.argv[1]
with atomic_write(path) as file, temporary_folder(sys.argv[2], 'work') as folder:
    file.write(b'half'); file.flush()
    (folder / 'inside').write_text('half')
    print('writing', flush=True)
    time.sleep(60)
'''


def test_what_a_killed_run_left_is_removed_by_the_next_one_and_not_before(tmp_path):
    path = tmp_path / 'a'
    path.write_text('old')
    child = subprocess.Popen([sys.executable, '-c', _KILLED, path, tmp_path], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == 'writing\n'
    remove_leftovers(tmp_path)
    assert len(os.listdir(tmp_path)) == 3, 'it is still being written'
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert path.read_text() == 'old' and len(os.listdir(tmp_path)) == 3
    with atomic_write(tmp_path / 'b') as file:
        remove_leftovers(tmp_path)
        file.write(b'new')
    assert sorted(os.listdir(tmp_path)) == ['a', 'b']
    assert path.read_text() == 'old' and (tmp_path / 'b').read_text() == 'new'


def test_files_of_others_are_not_leftovers(tmp_path):
    names = {'.x.tmp', 'vop_mm.tmp', '.vop_mm.tmp', '.vop_mm.0123456789abcdef.a', '.vop_mm.short.a.tmp'}
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / '.vop_mm.0123456789abcdef.link.tmp').symlink_to(tmp_path / '.x.tmp')
    remove_leftovers(tmp_path)
    assert names < set(os.listdir(tmp_path))


def test_the_longest_name_can_be_written(tmp_path):
    name = '\N{CJK UNIFIED IDEOGRAPH-957F}' * 83 + '.mp4'  # 253 bytes
    with atomic_path(tmp_path / name) as beside:
        beside.write_bytes(b'1')
    assert os.listdir(tmp_path) == [name]


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / 'foreign').write_text('foreign')
    (tmp_path / 'a').symlink_to(tmp_path / 'foreign')
    with atomic_write(tmp_path / 'a', 'w') as file:
        file.write('mine')
    assert (tmp_path / 'foreign').read_text() == 'foreign' and (tmp_path / 'a').read_text() == 'mine'
    assert not (tmp_path / 'a').is_symlink()


def test_a_temporary_folder_may_be_renamed_or_is_gone(tmp_path):
    with temporary_folder(tmp_path, 'work') as folder:
        (folder / 'x').touch()
    assert os.listdir(tmp_path) == []
    with temporary_folder(tmp_path, 'work') as folder:
        (folder / 'x').touch()
        folder.rename(tmp_path / 'done')
    assert os.listdir(tmp_path) == ['done'] and os.listdir(tmp_path / 'done') == ['x']


def test_a_folder_among_the_systems_temporary_files_is_private_and_leftovers_there_are_removed(tmp_path):
    code = """
import os, sys
from vop_mm.utils.files import temporary_folder
with temporary_folder(None, 'work') as folder:
    (folder / 'x').touch()
    assert folder.stat().st_mode & 0o777 == 0o700
    print(*os.listdir(folder.parent), flush=True)
    if sys.argv[1:]:
        os.kill(os.getpid(), 9)
"""
    env = {**os.environ, 'TMPDIR': str(tmp_path)}
    names = []
    for argument in (['dies'], []):
        done = subprocess.run([sys.executable, '-c', code, *argument], env=env, capture_output=True, text=True)
        names += done.stdout.split()
        assert bool(os.listdir(tmp_path)) == bool(argument), done.stderr
    assert len(names) == len(set(names)) == 2


def test_processes_that_make_and_clean_at_once_do_not_disturb_each_other(tmp_path):
    """A file or folder that isn't locked yet may be taken for a leftover: then another one is made."""
    code = """
import sys
from vop_mm.utils.files import atomic_write, remove_leftovers, temporary_folder
for i in range(300):
    remove_leftovers(sys.argv[1])
    with temporary_folder(sys.argv[1], 'work') as folder, atomic_write(f'{sys.argv[1]}/{sys.argv[2]}') as file:
        (folder / 'x').touch()
        remove_leftovers(sys.argv[1])
        assert (folder / 'x').exists()
        file.write(b'1')
"""
    children = [subprocess.Popen([sys.executable, '-c', code, tmp_path, str(i)], stderr=subprocess.PIPE, text=True)
                for i in range(3)]
    for child in children:
        assert child.communicate()[1] == '' and child.returncode == 0
    assert sorted(os.listdir(tmp_path)) == ['0', '1', '2']


def test_a_folder_that_was_taken_for_a_leftover_is_made_again(tmp_path, monkeypatch):
    made = []
    mkdir = Path.mkdir

    def mkdir_and_lose_it(path, *args):
        mkdir(path, *args)
        made.append(path)
        if len(made) == 1:
            path.rmdir()

    monkeypatch.setattr(Path, 'mkdir', mkdir_and_lose_it)
    with temporary_folder(tmp_path, 'work') as folder:
        assert folder.is_dir() and len(made) == 2
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    """Also where nothing can be made: /proc says that it isn't there."""
    for parent in (tmp_path / 'no', Path('/proc')):
        for manager in (atomic_write(parent / 'a'), temporary_folder(parent, 'work')):
            with pytest.raises(FileNotFoundError), manager:
                pass


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A limit on the size of files fails a write as a full disk does."""
    path = tmp_path / 'a'
    path.write_text('old')
    code = f'''
import resource
from vop_mm.utils.files import AtomicBackend
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
AtomicBackend().put(b'x' * 100_000, {str(path)!r})
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode != 0 and 'File too large' in done.stderr
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a']


def test_is_a_backend_of_mmengine(tmp_path):
    backend = get_file_backend(str(tmp_path / 'x'), backend_args=dict(backend='atomic'))
    backend.put(b'1', str(tmp_path / 'new' / 'x'))
    backend.put_text('2', str(tmp_path / 'new' / 'y'))
    assert (tmp_path / 'new' / 'x').read_bytes() == b'1'
    assert (tmp_path / 'new' / 'y').read_text() == '2'
    assert time.time() - (tmp_path / 'new' / 'x').stat().st_mtime < 60


def test_an_error_with_a_message_of_its_own_keeps_it(tmp_path):
    with pytest.raises(BlockingIOError, match='^another process is at it$'), atomic_write(tmp_path / 'a'):
        raise BlockingIOError('another process is at it')
