"""Every tool ends on bad input with one line and a non-zero exit."""
import errno
import os
import subprocess
import sys

import pytest

from tests.tools import ROOT
from vop_mm.utils.cli import one_line, run_cli


@pytest.mark.parametrize(('error', 'line'), [
    (OSError(errno.ENOSPC, 'No space left on device', 'a/b.pth'), 'No space left on device: a/b.pth'),
    (FileNotFoundError('checkpoint not found: x.pth'), 'checkpoint not found: x.pth'),
    (KeyError('Foo is not in the\n registry'), 'KeyError: Foo is not in the registry'),
    (ValueError('bad\n  value'), 'ValueError: bad value'),
    (MemoryError(), 'out of memory'),
    (MemoryError('std::bad_alloc'), 'out of memory: std::bad_alloc'),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
     "out of memory: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
])
def test_one_line(error, line):
    assert one_line(error) == line


@pytest.mark.parametrize(('body', 'status', 'err'), [
    ('return 3', 3, ''),
    ('return None', 0, ''),
    ("raise ValueError('no such thing')", 1, 'error: ValueError: no such thing\n'),
    ('raise KeyboardInterrupt', 130, 'interrupted\n'),
])
def test_exit_status(body, status, err):
    code = f'def main():\n    {body}\nfrom vop_mm.utils.cli import run_cli\nrun_cli(main)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.startswith(err) and 'Traceback' not in done.stderr


def run(body, **kwargs):
    code = 'def main():\n' + ''.join(f'    {line}\n' for line in body.splitlines())
    code += 'from vop_mm.utils.cli import run_cli\nrun_cli(main)'
    return subprocess.run([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True,
                          **{'stdout': subprocess.PIPE, **kwargs})


def test_a_function_that_calls_it_gets_the_status():
    done = subprocess.run([sys.executable, '-c', 'from tests.test_utils.test_cli import call; call()'],
                          capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, '3\n'), done.stderr


def call():
    try:
        run_cli(lambda: 3)
    except SystemExit as e:
        print(e.code)


def test_work_that_is_registered_for_the_exit_is_done_and_threads_are_waited_for():
    done = run("""import atexit, threading, time
atexit.register(print, 'registered')
threading.Thread(target=lambda: (time.sleep(0.5), print('thread'))).start()
print('main')""")
    assert (done.returncode, done.stdout, done.stderr) == (0, 'main\nthread\nregistered\n', '')


def test_a_bug_shows_its_traceback():
    done = run('{}.no_such')
    assert done.returncode == 1 and 'Traceback' in done.stderr


LIMIT = 'import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n'


@pytest.mark.parametrize(('body', 'words'), [
    (LIMIT + 'bytearray(1 << 31)', 'out of memory'),
    (LIMIT + 'import numpy\nnumpy.ones(1 << 31)', 'out of memory: Unable to allocate 16.0 GiB'),
    ("import sqlite3\nsqlite3.connect(':memory:').execute('select * from t')", 'OperationalError: no such table: t'),
    ("import io, zipfile\nzipfile.ZipFile(io.BytesIO(b'no archive'))", 'BadZipFile: File is not a zip file'),
    ("import pickle\npickle.loads(b'no pickle')", 'UnpicklingError: '),
    ("import pickle\npickle.loads(b'')", 'EOFError: Ran out of input'),
    ("import zlib\nzlib.decompress(b'no zlib')", 'error: Error -3 while decompressing'),
    ('float(10 ** 400)', 'OverflowError: int too large'),
])
def test_memory_and_damaged_files_are_a_line(body, words):
    done = run(body)
    line, hint = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(f'error: {words}') and 'VOP_MM_TRACEBACK' in hint


@pytest.mark.parametrize('body', ['for _ in range(100_000):\n    print("a line")', 'print("a line")'],
                         ids=['in between', 'at the end'])
def test_a_reader_that_has_gone_ends_it_quietly(body):
    """As ``| head`` does."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = run(body, stdout=writes)
    finally:
        os.close(writes)
    assert done.returncode == 141 and done.stderr == ''


def test_another_broken_pipe_is_told():
    done = run("import os\nreads, writes = os.pipe()\nos.close(reads)\nos.write(writes, b'1')")
    assert done.returncode == 1 and done.stderr.startswith('error: Broken pipe')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_full_disk_under_stdout_is_told_once():
    with open('/dev/full', 'w') as full:
        done = run('print("a line")', stdout=full)
    assert done.returncode == 1 and done.stderr.startswith('error: No space left on device')
    assert len(done.stderr.splitlines()) == 2


def test_a_run_that_went_well_leaves_its_process_group(tmp_path):
    """Ending inside it, a process is aborted now and then: seen once in some fifty runs on two processes."""
    code = f"""
import atexit, torch.distributed as dist
atexit.register(lambda: print('left', not dist.is_initialized()))
def main():
    dist.init_process_group('gloo', init_method='file://{tmp_path}/store', rank=0, world_size=1)
from vop_mm.utils.cli import run_cli
run_cli(main)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == 'left True\n', done.stderr


@pytest.mark.parametrize('error', [ValueError('a\x1b[2Jb'), FileNotFoundError(2, 'No such file', 'a\x1b[2Jb\n'),
                                   KeyError('a\x1b[2Jb\udc80')])
def test_what_a_terminal_would_act_on_is_escaped(error):
    line = one_line(error)
    assert line.isprintable() and r'a\x1b[2Jb' in line
