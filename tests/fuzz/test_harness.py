"""The fuzzer notices what it is there for: each target here does one forbidden thing, and is caught."""
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mmaction.datasets  # noqa: F401 - MMEngine would when it builds, and parts of it make code of text
import pytest

from tests.fuzz.configs import mutate_config
from tests.fuzz.harness import Case, Kind, WrongResult, make_input, run_case
from tests.fuzz.kinds import load_kind
from tests.fuzz.mutate import mutate_bytes, mutate_json
from tests.fuzz.world import World
from vop_mm.registry import TRANSFORMS


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp('fuzz') / 'world')
    (world.good / 'good.txt').write_text('good')
    world.canaries.arm()
    return world


def try_out(world, tmp_path, target, seconds=10., memory=1 << 30):
    def make(rng, world, folder):
        (folder / 'input.txt').write_text('an input')
        return Case('as it is', ('input.txt', ))

    kind = Kind('self', make, lambda world, folder, case: target(world, folder), seconds=seconds, memory=memory)
    return run_case(kind, 'x', world, tmp_path / 'input')


def print_error(line):
    """What a tool prints that doesn't go through run_cli."""
    print(line, file=sys.stderr)
    sys.exit(1)


def say(message):
    raise ValueError(message)


def in_a_child(world, folder):
    if os.fork() == 0:
        os.system('true')
        os._exit(0)
    os.wait()


def natively(world, folder):
    """Of this Python hears nothing."""
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    libc.fopen(os.fsencode(world.canary / 'victim.txt'), b'r')


def connect_natively(world, folder):
    libc, handle = ctypes.CDLL(None), socket.socket()
    address = (2).to_bytes(2, 'little') + world.canaries.port.to_bytes(2, 'big') + bytes([127, 0, 0, 1]) + bytes(8)
    libc.connect(handle.fileno(), address, len(address))


def remove_and_restore_time(world, folder):
    path = world.good / 'good.txt'
    times = path.stat()
    with open(os.open(path, os.O_RDONLY)):
        pass
    ctypes.CDLL(None).truncate(os.fsencode(path), ctypes.c_long(2))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize('verdict, detail, target', [
    ('accepted', '', lambda w, f: None),
    ('accepted', '', lambda w, f: (f / 'new.txt').write_text('here it may')),
    ('refused', 'input.txt is damaged', lambda w, f: say('input.txt is damaged')),
    ('refused', 'input.txt', lambda w, f: (f / 'input.txt' / 'x').read_text()),
    ('refused', 'input.txt: 1', lambda w, f: say('input.txt:\n1')),  # run_cli makes one line of it
    ('ran code', 'os.system', lambda w, f: os.system('true')),
    ('ran code', 'os.system', in_a_child),
    ('ran code', 'subprocess.Popen', lambda w, f: subprocess.run(['true'])),
    ('ran code', 'exec', lambda w, f: exec('x = 1')),
    ('ran code', 'exec', lambda w, f: eval('1 + 1')),
    ('ran code', 'import this', lambda w, f: __import__('this')),
    ('ran code', 'marker', lambda w, f: __import__('fuzz_canary_module')),
    ('ran code', 'was built', lambda w, f: sys.modules['fuzz_canary_loaded'].Thing()),
    ('ran code', 'was built', lambda w, f: TRANSFORMS.build(dict(type='fuzz_canary_loaded.Thing'))),
    ('touched outside', 'open', lambda w, f: (w.folder / 'new.txt').write_text('not here')),
    ('touched outside', 'opened victim.txt', lambda w, f: (w.canary / 'victim.txt').read_text()),
    ('touched outside', 'opened victim.txt', natively),
    ('touched outside', 'os.mkdir', lambda w, f: (w.folder / 'made').mkdir()),
    ('touched outside', 'removed victim.txt', lambda w, f: (w.canary / 'victim.txt').unlink()),
    ('touched outside', 'good.txt', remove_and_restore_time),
    ('connected', '127.0.0.1', lambda w, f: socket.create_connection(('127.0.0.1', w.canaries.port))),
    ('connected', 'to the port', connect_natively),
    ('crashed', 'SIGSEGV', lambda w, f: os.kill(os.getpid(), signal.SIGSEGV)),
    ('crashed', 'exit status 3', lambda w, f: os._exit(3)),
    ('hung', 'not done', lambda w, f: time.sleep(60)),
    ('hung', 'not done', lambda w, f: os.open(os.mkfifo(f / 'fifo') or f / 'fifo', os.O_RDONLY)),
    ('traceback', 'TypeError', lambda w, f: None + 1),
    ('traceback', 'AssertionError', lambda w, f: _assert_false()),
    ('traceback', 'printed', lambda w, f: print('Traceback (most recent call last)')),
    ('no clear line', '0 lines', lambda w, f: sys.exit(1)),
    ('no clear line', 'act on a terminal', lambda w, f: print_error('error: input.txt \x1b[2J')),
    ('no clear line', 'lines', lambda w, f: say('input.txt ' + 'x' * 1000)),
    ('names no file', 'something is wrong', lambda w, f: say('something is wrong')),
    ('wrong result', 'not finite', lambda w, f: (_ for _ in ()).throw(WrongResult('not finite'))),
])
def test_what_a_target_does_is_noticed(world, tmp_path, verdict, detail, target):
    outcome = try_out(world, tmp_path, target, seconds=2. if verdict == 'hung' else 20.)
    assert outcome.verdict == verdict and detail in outcome.detail, outcome
    # and the next one is not blamed for it
    assert try_out(world, tmp_path, lambda w, f: None).verdict == 'accepted'
    assert (world.canary / 'victim.txt').stat().st_size > 10_000 and not (world.canary / 'ran').exists()


def _assert_false():
    raise AssertionError('a bug')


def test_memory_is_limited(world, tmp_path):
    outcome = try_out(world, tmp_path, lambda w, f: len(bytearray(2 << 30)), memory=1 << 30)
    assert outcome.is_failure or 'memory' in outcome.detail.lower()


def test_nothing_of_a_target_is_left_running(world, tmp_path):
    def target(world, folder):
        if os.fork() == 0:
            (folder / 'pid').write_text(str(os.getpid()))
            time.sleep(60)
        time.sleep(0.3)

    assert try_out(world, tmp_path, target).verdict == 'accepted'
    pid = int((tmp_path / 'input' / 'pid').read_text())
    status = Path(f'/proc/{pid}/status')
    deadline = time.monotonic() + 5
    while status.exists() and 'zombie' not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_targets_count_is_summed_up(world, tmp_path):
    def count(world, folder):
        world.counts['frames'] += 2
        raise WrongResult('x')

    for _ in range(3):
        assert try_out(world, tmp_path, count).verdict == 'wrong result'
    assert world.counts == {'frames': 6}


@pytest.mark.parametrize('name', ['annotation', 'lmdb'])
def test_a_seed_makes_the_same_input(world, tmp_path, name):
    kind = load_kind(name)
    kind.prepare(world)
    for number in range(8):
        cases = [make_input(kind, f'{name} 0 {number}', world, tmp_path / f'{number}_{i}') for i in range(2)]
        assert cases[0] == cases[1]
        files = [{path.relative_to(tmp_path / f'{number}_{i}'): path.read_bytes()
                  for path in (tmp_path / f'{number}_{i}').rglob('*') if path.is_file()} for i in range(2)]
        # lmdb notes the process in its lock file
        assert files[0].keys() == files[1].keys()
        assert all(files[0][path] == files[1][path] for path in files[0] if path.name != 'lock.mdb')


def test_changes_change(world):
    rng = random.Random(0)
    good, value = bytes(range(256)) * 20, dict(data_list=[dict(video_id='a', video='a.mp4', captions=['a'])])
    assert sum(mutate_bytes(rng, good)[0] != good for _ in range(100)) > 90
    assert len({mutate_json(rng, value)[0] for _ in range(200)}) > 80
    text = world.cfg.pretty_text
    changed = {mutate_config(rng, text, world, world.folder)[0] for _ in range(200)}
    assert len(changed) > 150 and sum('os.system' in one or 'fuzz_canary' in one for one in changed) > 10
