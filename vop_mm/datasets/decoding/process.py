"""Decode in a child process, which may crash or hang."""
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
from .pyav_reader import prepare_pyav

_BYTES_PER_SECOND = 5_000_000  # expected read speed of the slowest disk
_TO_START = 30  # seconds for a child to start, which usually takes milliseconds
_LOOK_FOR_PARENT = 5  # seconds between checks for a dead parent, whose socket another process may hold open
# No other thread may fork while a child is being started: it would inherit the child's end of the socket and hold it
# open after the child has died.
_STARTING = threading.RLock()
os.register_at_fork(before=_STARTING.acquire, after_in_parent=_STARTING.release, after_in_child=_STARTING.release)
# Children of this process by pid: their owner and socket. No cleanup runs when an owner is garbage collected, not even
# closing the socket, because a Ctrl-C at that moment would be lost. _bury() cleans up later.
_CHILDREN: dict[int, tuple[weakref.ref, socket.socket]] = {}
_FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTERM)


class DecodeProcess:
    """Calls a function on videos in a child process, which may die or hang on one of them.

    The child is forked at the first call (so it needs no imports), kept, and replaced if it dies. It ends with its
    parent. A call may use no more memory than :class:`~vop_mm.datasets.decoding.Limits` allows, and no more time than
    ``timeout`` per requested part plus one second per 5 MB of the file. After a fork or a copy, each side has its own
    child. Only one thread may call at a time. Do not start this while a decord reader is open: its threads do not
    survive a fork.

    Args:
        function (Callable): Function that the child calls. It is inherited, so it need not be picklable.
        timeout (float): Seconds allowed for one part of a call. Defaults to 60.

    Examples:
        >>> frames = DecodeProcess(lambda path: PyAVReader(path).get_batch([0]).asnumpy())
        >>> frames.call('a.mp4', 'a.mp4').shape
        (1, 360, 640, 3)
    """

    def __init__(self, function: Callable, timeout: float = 60.) -> None:
        if timeout <= 0:
            raise ValueError(f'timeout must be more than 0 seconds, got {timeout}')
        prepare_pyav()
        self.function, self.timeout = function, timeout
        self._parent = self._child = self._socket = None
        self._calling = False

    def call(self, path: str, *args: Any, parts: int = 1) -> Any:
        """Call the function in the child.

        Args:
            path (str): Video path. Errors name it, and its file size adds to the time limit.
            *args: Picklable arguments of the function.
            parts (int): Multiple of ``timeout`` to allow, for instance the number of clips. Defaults to 1.

        Returns:
            Any: The function's return value, which must be picklable.

        Raises:
            VideoDecodeError: The function raised it, or the child died, exceeded the time or memory limit, or was
                closed in the meantime.
            Exception: Any other exception of the function; the child's traceback is its cause.
        """
        _bury()
        self._calling, limit = True, self.timeout * parts
        try:
            if self._parent != os.getpid():
                self._start()
            self._socket.settimeout(limit)
            _send(self._socket, _pack((limit, path, args)))
            limit = _receive(self._socket)  # the child checks the file size, which may hang on a dead network drive
            self._socket.settimeout(limit)
            error, trace, value = _receive(self._socket)
        except (EOFError, ConnectionError):
            raise VideoDecodeError(path, f'the decoder crashed: {self._obituary()}') from None
        except BaseException as e:
            self._kill()  # its answer to this call must not be taken for the answer to the next
            if isinstance(e, TimeoutError):
                raise VideoDecodeError(path, f'the decoder timed out after {round(limit, 1):g} s') from None
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
        """Stop the child; the next call starts another. A call that another thread is waiting for raises an error."""
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
        """Wait for the child, which must be about to exit, and describe how it exited."""
        self._socket.close()
        self._parent = None
        status = _wait_for(self._child)
        if status is None:  # another thread or library waited for it
            return 'no status'
        return signal.Signals(-status).name if status < 0 else f'exit status {status}'

    def _start(self) -> None:
        prepare_pyav()  # a copy that another process received was not initialized here
        with _STARTING, _no_interrupt():
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            parent = os.getpid()
            with warnings.catch_warnings():
                # Python warns about threads that may hold a lock. The thread of a DataLoader worker holds none that the
                # child needs.
                warnings.simplefilter('ignore', DeprecationWarning)
                child = os.fork()
            if child == 0:
                try:
                    ours.close()
                    self._serve(its, parent)
                finally:
                    os._exit(70)  # skip the parent's cleanup
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
        """Answer requests in the child until the parent is gone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives Ctrl-C, too
        for kind in (*_FATAL, signal.SIGALRM):
            signal.signal(kind, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, ))
        # messages that C libraries print about a file would lack its name
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        requests.sendall(b'1')
        gc.freeze()  # keep the parent's objects out of garbage collection
        while os.getppid() == parent:
            requests.settimeout(_LOOK_FOR_PARENT)
            try:
                limit, path, args = _receive(requests)
            except TimeoutError:
                continue
            except EOFError:
                break
            # the parent enforces the time limit; this alarm covers the case that the parent is gone
            signal.setitimer(signal.ITIMER_REAL, limit + 1)
            limit += _size(path) / _BYTES_PER_SECOND
            signal.setitimer(signal.ITIMER_REAL, limit + 1)
            requests.settimeout(None)
            _send(requests, _pack(limit))
            answer, failed = _answer(self.function, args)
            # A reader left alive would keep decoding for nobody until memory is full.
            del args
            if failed:
                gc.collect()
            signal.setitimer(signal.ITIMER_REAL, 0)
            _send(requests, answer)
            del answer

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _parent=None, _child=None, _socket=None, _calling=False)


def _size(path: str) -> int:
    """Return the size of a file in bytes; 0 if it can't be accessed."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # ValueError: NUL in the name
        return 0


def _wait_for(child: int) -> int | None:
    """Wait for a child and return its exit status, negative for a signal; None if it is unknown."""
    _CHILDREN.pop(child, None)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except ChildProcessError:
        return None


def _bury() -> None:
    """Kill and reap the children whose owners are gone."""
    with _STARTING:
        for child, ours in [(child, ours) for child, (owner, ours) in list(_CHILDREN.items()) if owner() is None]:
            ours.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _wait_for(child)


def _forget_the_parents() -> None:
    """Close the parent's sockets in a forked process, so that the parent's children notice when it closes them."""
    for _, ours in _CHILDREN.values():
        ours.close()
    _CHILDREN.clear()


os.register_at_fork(after_in_child=_forget_the_parents)


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Delay Ctrl-C within the context; it would be lost in a process that is about to be forked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, ))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(function: Callable, args: tuple) -> tuple[list[memoryview], bool]:
    """Call the function; return the packed (error or None, traceback, return value), and True if it is an error."""
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
        except Exception:  # an exception's own pickling code may raise anything
            e = RuntimeError(f'{type(e).__name__}: {e}')
        return _pack((e, trace, None)), True


def _pack(message: Any) -> list[memoryview]:
    """Split a message into its arrays, followed by the pickled rest."""
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
        TimeoutError: Nothing arrived within the socket's timeout.
    """
    count, = struct.unpack('<Q', _read(sock, 8))
    sizes = struct.unpack(f'<{count}Q', _read(sock, 8 * count))
    *buffers, pickled = (_read(sock, size) for size in sizes)
    return pickle.loads(pickled, buffers=buffers)


def _read(sock: socket.socket, size: int) -> np.ndarray:
    content = np.empty(size, dtype=np.uint8)  # unlike a bytearray, it is not filled with zeros first
    done = 0
    while done < size:
        read = sock.recv_into(content[done:])
        if not read:
            raise EOFError
        done += read
    return content
