"""Decoding where it may crash and hang: in a process of its own."""
import contextlib
import gc
import os
import pickle
import signal
import socket
import struct
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import VideoDecodeError
from .limits import limited_memory, out_of_memory

_BYTES_PER_SECOND = 5_000_000  # at which the slowest disk is expected to deliver a file
_TO_START = 30  # seconds until a child has to be there, which usually are milliseconds
_LOOK_FOR_PARENT = 5  # seconds between looks, where somebody else holds our side of the socket open
# No other thread forks while a child is being started: it would inherit the child's side of the socket, and hold it
# open when the child is dead.
_STARTING = threading.RLock()
os.register_at_fork(before=_STARTING.acquire, after_in_parent=_STARTING.release, after_in_child=_STARTING.release)
# The children of this process, by number: what they belong to, and how they are talked to. Nothing is run when such an
# object goes away, not even a socket is closed: a Ctrl-C that came then would be lost. _bury() does it later.
_CHILDREN: dict[int, tuple[weakref.ref, socket.socket]] = {}
_FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTERM)


class DecodeProcess:
    """Calls a function on videos in a child process, which may die or hang on one of them.

    The child is forked at the first call, so that it needs no imports of its own, kept, and replaced when it died. It
    ends with its parent. A call may take no more memory than :class:`~vop_mm.datasets.decoding.Limits` says, and no
    more time than ``timeout`` for each part that is asked for and a second for each 5 MB of the file. After a fork or a
    copy, each side has a child of its own. One thread may call at a time. decord's readers have threads, which a fork
    does not take along: don't start this with one open.

    Args:
        function (Callable): What the child calls. It is inherited, so it needn't be picklable.
        timeout (float): Seconds that one part of a call may take. Defaults to 60.

    Examples:
        >>> frames = DecodeProcess(lambda path: PyAVReader(path).get_batch([0]).asnumpy())
        >>> frames.call('a.mp4', 'a.mp4').shape
        (1, 360, 640, 3)
    """

    def __init__(self, function: Callable, timeout: float = 60.) -> None:
        if timeout <= 0:
            raise ValueError(f'timeout must be more than 0 seconds, got {timeout}')
        self.function, self.timeout = function, timeout
        self._parent = self._child = self._socket = None
        self._calling = False

    def call(self, path: str, *args: Any, parts: int = 1) -> Any:
        """Call the function in the child.

        Args:
            path (str): The video: errors name it, and its size counts for the time limit.
            *args: For the function; picklable.
            parts (int): For how much work ``timeout`` is meant, for instance the number of clips. Defaults to 1.

        Returns:
            Any: What the function returns; picklable.

        Raises:
            VideoDecodeError: The function raised it, the child died, took longer than the time limit, took more memory
                than there may be, or was closed meanwhile.
            Exception: What else the function raised; the child's traceback is its cause.
        """
        _bury()
        self._calling, limit = True, self.timeout * parts
        try:
            if self._parent != os.getpid():
                self._start()
            self._socket.settimeout(limit)
            _send(self._socket, _pack((limit, path, args)))
            limit = _receive(self._socket)  # the child looks at the file, which may be where nobody answers
            self._socket.settimeout(limit)
            error, trace, value = _receive(self._socket)
        except (EOFError, ConnectionError):
            raise VideoDecodeError(path, f'the decoder died: {self._obituary()}') from None
        except BaseException as e:
            self._kill()  # its answer to this call must not be taken for one to the next
            if isinstance(e, TimeoutError):
                raise VideoDecodeError(path, f'the decoder did not end within {round(limit, 1):g} s') from None
            raise
        finally:
            self._calling = False
        if error is None:
            return value
        if isinstance(error, VideoDecodeError):
            raise error
        if isinstance(error, MemoryError):
            raise out_of_memory(path)
        raise error from RuntimeError(f'in the decoding process:\n{trace}')

    def close(self) -> None:
        """End the child; the next call starts another. One that another thread is waiting for raises."""
        if self._calling:
            if self._parent == os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._child, signal.SIGKILL)
        else:
            self._kill()

    def _kill(self) -> None:
        if self._parent == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            self._obituary()

    def _obituary(self) -> str:
        """How the child ended, which it must be about to."""
        self._socket.close()
        self._parent = None
        status = _wait_for(self._child)
        if status is None:  # somebody else waited for it
            return 'no status'
        return signal.Signals(-status).name if status < 0 else f'exit status {status}'

    def _start(self) -> None:
        with _STARTING, _no_interrupt():
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            parent = os.getpid()
            with warnings.catch_warnings():
                # Python warns of threads that hold a lock. DataLoader's workers have one, which holds none that the
                # child needs.
                warnings.simplefilter('ignore', DeprecationWarning)
                child = os.fork()
            if child == 0:
                try:
                    ours.close()
                    self._serve(its, parent)
                finally:
                    os._exit(70)  # nothing of the parent's is cleaned up here
            its.close()
            self._parent, self._child, self._socket = parent, child, ours
            _CHILDREN[child] = weakref.ref(self), ours
        ours.settimeout(_TO_START)
        try:
            _read(ours, 1)
        except TimeoutError:
            raise RuntimeError(f'a decoding process did not start within {_TO_START} s: it is a copy of this one, and '
                               'waits for threads that a library had here. Start decoding before other work, or '
                               'convert frames with threads=1, if that library is PyAV') from None

    def _serve(self, requests: socket.socket, parent: int) -> None:
        """What the child does all its life."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a Ctrl-C the parent hears, too
        for kind in (*_FATAL, signal.SIGALRM):
            signal.signal(kind, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, ))
        # what libraries in C print of a file would stand there without its name
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        requests.sendall(b'1')
        gc.freeze()  # what is the parent's needn't be looked at again
        while os.getppid() == parent:
            requests.settimeout(_LOOK_FOR_PARENT)
            try:
                limit, path, args = _receive(requests)
            except TimeoutError:
                continue
            except EOFError:
                break
            # the parent looks at the clock; this is for the case that it is gone
            signal.setitimer(signal.ITIMER_REAL, limit + 1)
            limit += _size(path) / _BYTES_PER_SECOND
            signal.setitimer(signal.ITIMER_REAL, limit + 1)
            requests.settimeout(None)
            _send(requests, _pack(limit))
            answer, failed = _answer(self.function, args)
            # A reader that is left in there would go on to decode: for nobody, and until memory is full.
            del args
            if failed:
                gc.collect()
            signal.setitimer(signal.ITIMER_REAL, 0)
            _send(requests, answer)
            del answer

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _parent=None, _child=None, _socket=None, _calling=False)


def _size(path: str) -> int:
    """Bytes of a file; 0: it can't be looked at."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # a ValueError of a NUL in the name
        return 0


def _wait_for(child: int) -> int | None:
    """Its exit status, negative for a signal; None: somebody else has it."""
    _CHILDREN.pop(child, None)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except ChildProcessError:
        return None


def _bury() -> None:
    """End and wait for the children whose objects are gone."""
    with _STARTING:
        for child, ours in [(child, ours) for child, (owner, ours) in list(_CHILDREN.items()) if owner() is None]:
            ours.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _wait_for(child)


def _forget_the_parents() -> None:
    """In a forked process: its parent's children are none of it, and notice that their socket is closed."""
    for _, ours in _CHILDREN.values():
        ours.close()
    _CHILDREN.clear()


os.register_at_fork(after_in_child=_forget_the_parents)


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Within it a Ctrl-C waits: it would be lost in a process that is about to be forked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, ))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(function: Callable, args: tuple) -> tuple[list[memoryview], bool]:
    """Packed: an error or None, its traceback, and what the function returned. And whether it is an error."""
    try:
        with limited_memory():
            value = function(*args)
        return _pack((None, '', value)), False
    except MemoryError:
        return _pack((MemoryError(), '', None)), True
    except Exception as e:
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(e))
        except Exception:  # whatever an exception's own way of being pickled raises
            e = RuntimeError(f'{type(e).__name__}: {e}')
        return _pack((e, trace, None)), True


def _pack(message: Any) -> list[memoryview]:
    """The parts of a message: its arrays, and last itself, pickled without them."""
    buffers = []
    pickled = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    return [*(buffer.raw() for buffer in buffers), memoryview(pickled)]


def _send(sock: socket.socket, parts: list[memoryview]) -> None:
    sock.sendall(struct.pack(f'<{1 + len(parts)}Q', len(parts), *(part.nbytes for part in parts)))
    for part in parts:
        sock.sendall(part)


def _receive(sock: socket.socket) -> Any:
    """Receive a message.

    Raises:
        EOFError: The other side is gone.
        TimeoutError: Nothing came in the socket's time.
    """
    count, = struct.unpack('<Q', _read(sock, 8))
    sizes = struct.unpack(f'<{count}Q', _read(sock, 8 * count))
    *buffers, pickled = (_read(sock, size) for size in sizes)
    return pickle.loads(pickled, buffers=buffers)


def _read(sock: socket.socket, size: int) -> np.ndarray:
    content = np.empty(size, dtype=np.uint8)  # a bytearray would be filled with zeros first
    done = 0
    while done < size:
        read = sock.recv_into(content[done:])
        if not read:
            raise EOFError
        done += read
    return content
