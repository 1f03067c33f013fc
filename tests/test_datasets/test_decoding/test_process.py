"""The process that decodes: what it returns, how it dies, who ends it."""
import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import encode_video, read_index
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import DecodeProcess, PyAVReader
from vop_mm.datasets.decoding.pyav_reader import prepare_pyav


def work(kind: str, *args):
    """Runs in the child."""
    if kind == 'die':
        os.kill(os.getpid(), args[0])
    if kind == 'exit':
        os._exit(3)
    if kind == 'first time':  # something else than later on
        kind, done, *args = args
        if os.path.exists(done):
            return os.getpid(), *args
        Path(done).touch()
        return work(kind, *args)
    if kind == 'sleep':
        time.sleep(args[0])
    if kind == 'undecodable':
        raise VideoDecodeError('b.mp4', 'because')
    if kind == 'bug':
        return [][1]
    if kind == 'unpicklable':
        return threading.Lock()
    if kind == 'unpicklable error':
        raise type('Local', (Exception, ), {})('says this')
    return os.getpid(), *args


def children() -> set[str]:
    return set(Path(f'/proc/self/task/{os.getpid()}/children').read_text().split())


def is_alive(pid: int) -> bool:
    stat = Path(f'/proc/{pid}/stat')
    return stat.exists() and stat.read_text().rpartition(')')[2].split()[0] != 'Z'


@pytest.fixture
def process():
    process = DecodeProcess(work, timeout=30)
    yield process
    process.close()


def test_values_and_arrays_come_back(process):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 90, 160, 3), dtype=np.uint8)
    sent = dict(imgs=list(frames), frame_inds=np.arange(12), empty=np.zeros((0, 3)), text='müde', turned=frames.T)
    child, back = process.call('a.mp4', 'echo', sent)
    assert child != os.getpid()
    assert back['text'] == 'müde' and back['empty'].shape == (0, 3)
    np.testing.assert_array_equal(np.stack(back['imgs']), frames)
    np.testing.assert_array_equal(back['turned'], frames.T)
    assert back['frame_inds'].tolist() == list(range(12)) and back['frame_inds'].flags.aligned
    back['imgs'][0][:] = 0  # ours to write
    assert process.call('a.mp4', 'echo', 5) == (child, 5)  # the same process
    np.testing.assert_array_equal(np.stack(back['imgs'][1:]), frames[1:])  # which doesn't reuse what it sent


@pytest.mark.parametrize('kind, args, says', [
    ('die', [signal.SIGSEGV], 'SIGSEGV'), ('die', [signal.SIGABRT], 'SIGABRT'), ('die', [signal.SIGKILL], 'SIGKILL'),
    ('exit', [], 'exit status 3')])
def test_a_death_is_an_undecodable_video(process, kind, args, says, capfd):
    first, = process.call('a.mp4', 'echo')
    with pytest.raises(VideoDecodeError, match=f'the decoder crashed: {says}') as error:
        process.call('männchen.mp4', kind, *args)
    assert error.value.path == 'männchen.mp4'
    second, = process.call('a.mp4', 'echo')
    assert first != second and not Path(f'/proc/{first}').exists()
    assert capfd.readouterr().err == ''


def test_a_time_limit(process):
    process.call('a.mp4', 'sleep', 0.3)
    process.close()
    process.timeout = 0.2
    start = time.monotonic()
    with pytest.raises(VideoDecodeError, match='timed out after 0.2 s'):
        process.call('a.mp4', 'sleep', 20)
    assert time.monotonic() - start < 10
    assert process.call('a.mp4', 'echo', 1)[1] == 1  # not the late answer of the first
    with pytest.raises(ValueError, match='more than 0'):
        DecodeProcess(work, timeout=0)


def test_a_limit_grows_with_the_file_and_with_what_is_asked_for(process, tmp_path):
    process.call('a.mp4', 'echo')
    process.timeout = 0.2
    with open(tmp_path / 'a.mp4', 'wb') as file:
        file.truncate(5_000_000)  # a second
    process.call(str(tmp_path / 'a.mp4'), 'sleep', 0.7)
    process.call('no such file', 'sleep', 0.7, parts=5)
    with pytest.raises(VideoDecodeError, match='timed out after 1.4 s'):
        process.call(str(tmp_path / 'a.mp4'), 'sleep', 20, parts=2)


@pytest.mark.parametrize('kind, arg', [('die', signal.SIGSEGV), ('sleep', 20)])
def test_there_is_no_second_try(process, tmp_path, kind, arg):
    process.timeout = 2
    first, = process.call('a.mp4', 'echo')
    with pytest.raises(VideoDecodeError, match='SIGSEGV|timed out after 2 s'):
        process.call('a.mp4', 'first time', kind, str(tmp_path / 'done'), arg)
    second, *found = process.call('a.mp4', 'first time', kind, str(tmp_path / 'done'), arg)
    assert first != second and found == [arg] and not is_alive(first)


def test_errors_keep_kind_and_text_and_child(process):
    child, = process.call('a.mp4', 'echo')
    with pytest.raises(VideoDecodeError, match="^can't decode b.mp4: because$") as error:
        process.call('a.mp4', 'undecodable')
    assert (error.value.path, error.value.reason) == ('b.mp4', 'because')
    with pytest.raises(IndexError, match='list index') as error:
        process.call('a.mp4', 'bug')
    assert 'return [][1]' in str(error.value.__cause__)  # where it happened
    with pytest.raises(RuntimeError, match='Local: says this'):
        process.call('a.mp4', 'unpicklable error')
    with pytest.raises(TypeError, match='pickle'):
        process.call('a.mp4', 'unpicklable')
    with pytest.raises(TypeError, match='pickle'):
        process.call('a.mp4', 'echo', threading.Lock())
    process.call('a.mp4', 'echo')
    with pytest.raises(TypeError):
        DecodeProcess(work).call('a.mp4')


def test_every_process_and_copy_has_its_own_child(process):
    child, = process.call('a.mp4', 'echo')
    before = children()
    assert copy.deepcopy(process).call('a.mp4', 'echo') != (child, )
    assert pickle.loads(pickle.dumps(process)).call('a.mp4', 'echo') != (child, )
    assert process.call('a.mp4', 'echo') == (child, )
    assert children() == before  # those of copies that are gone
    read, write = os.pipe()
    fork = os.fork()
    if fork == 0:
        try:
            os.write(write, str(process.call('a.mp4', 'echo')[0]).encode())
            process.close()
        finally:
            os._exit(0)
    os.waitpid(fork, 0)
    assert int(os.read(read, 100)) != child
    assert process.call('a.mp4', 'echo') == (child, )  # the fork did not end it


def test_works_in_a_thread_with_many_open_files(process):
    """Not the main thread; and descriptors beyond what select() takes."""
    files = [os.dup(0) for _ in range(1100)]
    try:
        found = []
        thread = threading.Thread(target=lambda: found.append(process.call('a.mp4', 'echo', 1)[1]))
        thread.start()
        thread.join()
    finally:
        for file in files:
            os.close(file)
    assert found == [1]


@pytest.mark.parametrize('busy', [False, True])
def test_the_child_ends_with_its_parent(busy):
    code = ('import os, time, sys\n'
            'from vop_mm.datasets.decoding import DecodeProcess\n'
            'def work(seconds):\n'
            '    time.sleep(seconds)\n'
            '    return os.getpid()\n'
            'process = DecodeProcess(work, timeout=1)\n'
            'print(process.call("a.mp4", 0), flush=True)\n'
            'sys.stdin.readline()\n'
            f'process.call("a.mp4", {60 if busy else 0})\n'
            'sys.stdin.readline()\n')
    parent = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.stdin.write('\n')
    parent.stdin.flush()
    time.sleep(0.3 if busy else 0)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def test_a_death_is_noticed_where_others_were_started_at_the_same_time(monkeypatch):
    """A child that inherits the other one's end of a socket keeps it open when that one is dead."""
    fork = os.fork

    def slow_fork():
        child = fork()
        if child:
            time.sleep(0.3)  # before the child's end is closed here
        return child

    monkeypatch.setattr(os, 'fork', slow_fork)
    processes = [DecodeProcess(lambda: os.kill(os.getpid(), signal.SIGKILL), timeout=10),
                 DecodeProcess(lambda: time.sleep(3), timeout=10)]
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        dying, _ = [pool.submit(process.call, 'a.mp4') for process in processes]
        with pytest.raises(VideoDecodeError, match='crashed: SIGKILL'):
            dying.result()
        assert time.perf_counter() - start < 2
    for process in processes:
        process.close()


INTERRUPTED = '''
import os, signal, time
from vop_mm.datasets.decoding import DecodeProcess

sent = seen = 0


def interrupt(*args):
    global sent
    sent += 1
    raise KeyboardInterrupt


signal.signal(signal.SIGALRM, interrupt)
for i in range(150):
    process = DecodeProcess(os.getpid)
    process.call('a.mp4')
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.003 * i / 150)
        time.sleep(0.0025)
        process = None
        time.sleep(2)
    except KeyboardInterrupt:
        seen += 1
    if seen < sent:
        break
print(sent, seen)
'''


def test_a_ctrl_c_is_never_lost():
    """While an object goes away, Python prints exceptions and goes on."""
    done = subprocess.run([sys.executable, '-c', INTERRUPTED], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('150 150\n', ''), done.stdout + done.stderr


def test_a_ctrl_c_while_decoding(process):
    first, = process.call('a.mp4', 'echo')
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        process.call('a.mp4', 'sleep', 20)
    assert time.monotonic() - start < 10 and not is_alive(first)
    assert process.call('a.mp4', 'echo', 1)[1] == 1


def test_closed_by_another_thread_a_call_ends(process):
    process.call('a.mp4', 'echo')
    start = time.monotonic()
    threading.Timer(0.3, process.close).start()
    with pytest.raises(VideoDecodeError, match='the decoder crashed: SIGKILL'):
        process.call('a.mp4', 'sleep', 20)  # not tried again
    assert time.monotonic() - start < 10
    assert process.call('a.mp4', 'echo', 1)[1] == 1


def test_objects_that_go_away_leave_no_processes():
    before = children()
    for _ in range(5):
        DecodeProcess(work).call('a.mp4', 'echo')
    process = DecodeProcess(work)
    child, = process.call('a.mp4', 'echo')
    assert children() == before | {str(child)}
    process.close()
    assert children() == before


def test_the_child_says_nothing_of_its_own(process, capfd):
    process.function = lambda: (os.write(2, b'moov atom not found'), 1)[1]
    assert process.call('a.mp4') == 1
    assert capfd.readouterr().err == ''


class Held:
    """What a failed call leaves behind, in a circle."""

    def __init__(self, path):
        self.me, self.path = self, path

    def __del__(self):
        Path(self.path).touch()


def fail_holding(path):
    held = Held(path)
    raise VideoDecodeError(held.path, 'because')


def test_what_a_failed_call_held_goes_with_the_answer(tmp_path):
    """A reader that is left in there decodes on, for nobody."""
    process = DecodeProcess(fail_holding)
    with pytest.raises(VideoDecodeError):
        process.call('a.mp4', str(tmp_path / 'gone'))
    deadline = time.monotonic() + 10
    while not (tmp_path / 'gone').exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (tmp_path / 'gone').exists()
    process.close()


def test_a_child_that_does_not_start_is_no_fault_of_the_video(monkeypatch):
    monkeypatch.setattr('vop_mm.datasets.decoding.process._TO_START', .5)
    monkeypatch.setattr(DecodeProcess, '_serve', lambda *_: time.sleep(60))
    process = DecodeProcess(len)
    for _ in range(2):
        with pytest.raises(RuntimeError, match='a decoding process did not start within 0.5 s: it is a copy'):
            process.call('a.mp4', 'abc')
        with pytest.raises(ProcessLookupError):
            os.kill(process._child, 0)


def test_a_child_converts_frames_where_its_parent_did_so_with_threads(tmp_path):
    path = str(encode_video(tmp_path / 'a.mp4', 12, size=(480, 640)))
    process = DecodeProcess(lambda path: PyAVReader(path).get_batch([7]).asnumpy(), timeout=20)

    def convert():
        with av.open(path) as container:
            for frame in container.decode(video=0):
                frame.reformat(format='rgb24', width=320, **({'threads': 2} if av.__version__ >= '17' else {}))

    def converted_by_a_child():
        process.close()
        return read_index(process.call(path, path)[0])

    convert()
    assert converted_by_a_child() == 7
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(converted_by_a_child).result() == 7
        pool.submit(convert).result()
        assert converted_by_a_child() == 7
    convert()  # still goes on here
    process.close()


def test_converters_of_other_threads_outlive_a_fork(monkeypatch):
    """As PyAV 19 keeps them: in a child, those of its parent are neither used nor freed."""
    class Converter:
        def __del__(self):
            freed.append(os.getpid())

    freed, theirs = [], threading.local()
    theirs.converter = Converter()
    monkeypatch.setattr(av.video.frame, '_thread_local', theirs, raising=False)
    prepare_pyav.__wrapped__()
    ours, ready, end = av.video.frame._thread_local, threading.Event(), threading.Event()
    assert ours is not theirs and not hasattr(ours, 'converter')
    ours.converter = first = Converter()

    def other():
        assert not hasattr(ours, 'converter')
        ours.converter = Converter()
        ready.set()
        end.wait(20)
        assert ours.converter is not first
    thread = threading.Thread(target=other)
    thread.start()
    ready.wait(20)
    prepare_pyav.__wrapped__()
    assert av.video.frame._thread_local is ours and ours.converter is first
    del theirs
    child = os.fork()
    if child == 0:
        os._exit(freed != [] or hasattr(ours, 'converter'))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and freed == []
    end.set()
    thread.join()
