"""Files are whole or not there."""
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from mmengine.fileio import get_file_backend

from vop_mm.utils.files import atomic_write


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


def test_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a'
    path.write_text('old')
    code = f'''
import time
from vop_mm.utils.files import atomic_write
with atomic_write({str(path)!r}) as file:
    file.write(b'half'); file.flush()
    print('writing', flush=True)
    time.sleep(60)
'''
    child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == 'writing\n'
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert path.read_text() == 'old'


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
