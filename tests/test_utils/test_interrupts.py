"""Ctrl-C ends a tool with one line and status 130, whatever becomes of the exception on its way up."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAD = '''
import os, signal, subprocess, sys, threading, time
from vop_mm.utils.cli import run_cli

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def main():
'''


def start(body):
    code = HEAD + ''.join(f'    {line}\n' for line in body.strip().splitlines()) + 'run_cli(main)\n'
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def run(body):
    process = start(body)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize('body', [
    # a finalizer swallows it, and the work would go on
    '''
class Swallows:
    def __del__(self):
        interrupt()
        time.sleep(0.1)
item = Swallows()
del item
time.sleep(30)''',
    # so does a callback of a library in C
    '''
import ctypes
ctypes.CFUNCTYPE(None)(interrupt)()
time.sleep(30)''',
    # and a library that takes all exceptions for its own
    '''
try:
    interrupt()
except:
    pass
time.sleep(30)''',
    # as MMEngine does where it formats a config
    '''
try:
    interrupt()
except:
    raise SyntaxError('something else')''',
    # it was swallowed, and there was nothing left to do
    '''
try:
    interrupt()
except KeyboardInterrupt:
    print('done')''',
    'interrupt()\nsys.exit(3)',
    'import atexit\natexit.register(interrupt)',
    "import atexit\natexit.register(print, 'bye')\ninterrupt()",
], ids=['finalizer', 'callback', 'swallowed', 'another exception', 'at the end', 'exit', 'at exit', 'work at exit'])
def test_ends_with_one_line(body):
    start = time.monotonic()
    status, out, err = run(body)
    assert (status, err) == (130, 'interrupted\n'), out
    assert time.monotonic() - start < 20
    assert (out == 'bye\n') == ('bye' in body)


def test_while_python_takes_itself_apart():
    """There it would listen to nothing, and end with another status and no line; with torch that takes a while."""
    process = start('''
class Item:
    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGINT):
        kill(me, number)
sys.modules["item"] = Item()
print("done")''')
    out, err = process.communicate(timeout=60)
    assert out == 'done\n' and (process.returncode, err) in {(0, ''), (130, 'interrupted\n')}


def test_what_was_begun_is_cleaned_up_even_if_it_takes_a_while():
    status, out, err = run('''
try:
    interrupt()
finally:
    for _ in range(10):
        time.sleep(0.1)
    print('cleaned up')''')
    assert (status, out, err) == (130, 'cleaned up\n', 'interrupted\n')


def test_a_thread_that_hangs_does_not_keep_it(tmp_path):
    """What it was writing is removed all the same."""
    status, _, err = run(f'''
from concurrent.futures import ThreadPoolExecutor
from vop_mm.utils.files import atomic_write, temporary_folder
with atomic_write({str(tmp_path / 'a')!r}) as file, temporary_folder({str(tmp_path)!r}, 'b') as folder:
    (folder / 'c').touch()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 60)
        interrupt()''')
    assert (status, err) == (130, 'interrupted\n')
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('twice', [False, True])
def test_workers_that_are_killed_leave_no_folder_of_sockets(tmp_path, twice):
    process = start(f'''
import tempfile, torch
from torch.utils.data import DataLoader
from vop_mm.utils.interrupts import share_temporary_folder
tempfile.tempdir = {str(tmp_path)!r}
share_temporary_folder()
for _ in DataLoader([torch.zeros(9)] * 10**6, num_workers=2):  # tensors go by sockets
    try:
        print('ready', flush=True)
        time.sleep(60)
    finally:
        if {twice}:
            time.sleep(60)''')
    assert process.stdout.readline() == 'ready\n'
    assert len(os.listdir(tmp_path)) == 1
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == 'interrupted\n' and process.returncode == 130
    assert os.listdir(tmp_path) == []


def test_a_second_one_ends_it_at_once():
    process = start('''
try:
    print('ready', flush=True)
    time.sleep(60)
finally:
    print('cleaning up', flush=True)
    time.sleep(60)''')
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == 'cleaning up\n'
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)  # a launcher passes the terminal's on: the same Ctrl-C
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    start_of_end = time.monotonic()
    assert process.communicate(timeout=60)[1] == 'interrupted\n' and process.returncode == 130
    assert time.monotonic() - start_of_end < 2


def test_children_are_ended_and_say_nothing():
    """The terminal sends it to all of them: forked ones, those of forked ones, and programs."""
    process = start('''
import multiprocessing
context = multiprocessing.get_context('fork')
for target in (lambda: subprocess.run(['sleep', '60']), lambda: time.sleep(60)):
    context.Process(target=target).start()
subprocess.Popen(['sleep', '60'])
time.sleep(0.5)
print('ready', flush=True)
time.sleep(60)''')
    assert process.stdout.readline() == 'ready\n'
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[1] == 'interrupted\n' and process.returncode == 130
    assert members_soon(process.pid) == []


@pytest.mark.parametrize('method', ['spawn', 'fork'])
def test_workers_of_a_pool_end_with_a_tool_that_is_killed(method):
    process = start(f'''
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from vop_mm.utils.interrupts import end_with_parent
pool = ProcessPoolExecutor(2, get_context({method!r}), initializer=end_with_parent)
list(pool.map(time.sleep, [0.5, 0.5]))
print('ready', flush=True)
time.sleep(60)''')
    assert process.stdout.readline() == 'ready\n'
    assert len(members(process.pid)) >= 3
    process.kill()
    process.communicate()
    assert members_soon(process.pid) == []


def members_soon(group):
    """As :func:`members`, where they may be about to end."""
    until = time.monotonic() + 5
    while members(group) and time.monotonic() < until:
        time.sleep(0.02)
    return members(group)


def members(group):
    """Commands of the live processes of a group."""
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, pgrp = path.read_text().rpartition(')')[2].split()[:3]
        except OSError:  # it has ended
            continue
        if int(pgrp) == group and state not in 'ZX':
            found.append((path.parent / 'cmdline').read_bytes())
    return found


def test_a_program_started_while_interrupts_are_held_never_gets_one():
    status, out, err = run('''
from vop_mm.utils.interrupts import held_interrupts
with held_interrupts():
    child = subprocess.Popen([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(1); print(2)'],
                             stdout=subprocess.PIPE, text=True)
    interrupt()
    print('held', flush=True)
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    print(child.communicate()[0], end='', flush=True)
print('not held')''')
    assert (status, out, err) == (130, 'held\n2\n', 'interrupted\n')


def test_a_shell_that_ignores_it_for_a_tool_is_obeyed():
    code = HEAD + "    interrupt()\n    print('went on')\nrun_cli(main)\n"
    done = subprocess.run(['sh', '-c', 'trap "" INT; "$0" -c "$1"', sys.executable, code], capture_output=True,
                          text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'went on\n', '')


def test_one_that_comes_while_it_begins_to_listen():
    code = HEAD + '    pass\nimport os\nos.register_at_fork = lambda **_: interrupt()\nrun_cli(main)\n'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, 'interrupted\n')


def test_during_an_import_it_waits_for_its_end(tmp_path):
    """Torch's modules in C++ abort the process when they meet an exception."""
    (tmp_path / 'interrupted.py').write_text("""
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    print('imported', flush=True)
except BaseException:
    os.abort()
""")
    code, out, err = run(f'''
sys.path.insert(0, {str(tmp_path)!r})
import interrupted
time.sleep(30)''')
    assert (code, out, err) == (130, 'imported\n', 'interrupted\n')
