"""Decoding where it may crash and hang: in a process of its own."""
import contextlib
import os
import pickle
import signal
import socket
import struct
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import VideoDecodeError

_LOOK_FOR_PARENT = 5  # seconds between looks, where somebody else holds our side of the socket open
# No other thread forks while a child is being started: it would inherit the child's side of the socket, and hold it
# open when the child is dead.
_STARTING = threading.RLock()
os.register_at_fork(before=_STARTING.acquire, after_in_parent=_STARTING.release, after_in_child=_STARTING.release)
_FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTERM)


class _NoAnswer(Exception):
    """The child died or took too long."""


class DecodeProcess:
    """Calls a function on videos in a child process, which may die or hang on one of them.

    The child is forked at the first call, so that it needs no imports of its own, kept, and replaced when it died. It
    ends with its parent. Where it dies or takes too long, another one tries once more: now and then a decoder never
    ends on a video that is whole. After a fork or a copy, each side has a child of its own. One thread may call at a
    time. decord's readers have threads, which a fork does not take along: don't start this with one open.

    Args:
        function (Callable): What the child calls. It is inherited, so it needn't be picklable.
        timeout (float): Seconds that one call may take. Defaults to 60.

    Examples:
        >>> frames = DecodeProcess(lambda path: DecordReader(path).get_batch([0]).asnumpy())
        >>> frames.call('a.mp4', 'a.mp4').shape
        (1, 360, 640, 3)
    """

    def __init__(self, function: Callable, timeout: float = 60.) -> None:
        if timeout <= 0:
            raise ValueError(f'timeout must be more than 0 seconds, got {timeout}')
        self.function, self.timeout = function, timeout
        self._parent = self._child = self._socket = None

    def call(self, path: str, *args: Any) -> Any:
        """Call the function in the child, and where there is no answer, once more in another one.

        Args:
            path (str): The video that an error names.
            *args: For the function; picklable.

        Returns:
            Any: What the function returns; picklable.

        Raises:
            VideoDecodeError: The function raised it, the child died twice, or took longer than the time limit twice.
            Exception: What else the function raised; the child's traceback is its cause.
        """
        with contextlib.suppress(_NoAnswer):
            return self._call(path, args)
        try:
            return self._call(path, args)
        except _NoAnswer as e:
            raise VideoDecodeError(path, str(e)) from None

    def _call(self, path: str, args: tuple) -> Any:
        if self._parent != os.getpid():
            self._start()
        try:
            _send(self._socket, _pack(args))
            error, trace, value = _receive(self._socket)
        except (EOFError, ConnectionError):
            raise _NoAnswer(f'the decoder died: {self._obituary()}') from None
        except BaseException as e:
            self.close()  # its answer to this call must not be taken for one to the next
            if isinstance(e, TimeoutError):
                raise _NoAnswer(f'the decoder did not end within {self.timeout:g} s') from None
            raise
        if error is None:
            return value
        if isinstance(error, VideoDecodeError):
            raise error
        raise error from RuntimeError(f'in the decoding process:\n{trace}')

    def close(self) -> None:
        """End the child; the next call starts another."""
        if self._parent == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            self._obituary()

    def _obituary(self) -> str:
        """How the child ended, which it must be about to."""
        self._socket.close()
        self._parent = None
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        except ChildProcessError:  # somebody else waited for it
            return 'no status'
        return signal.Signals(-status).name if status < 0 else f'exit status {status}'

    def _start(self) -> None:
        with _STARTING:
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
        ours.settimeout(self.timeout)
        self._parent, self._child, self._socket = parent, child, ours

    def _serve(self, requests: socket.socket, parent: int) -> None:
        """What the child does all its life."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a Ctrl-C the parent hears, too
        for kind in (*_FATAL, signal.SIGALRM):
            signal.signal(kind, signal.SIG_DFL)
        while os.getppid() == parent:
            requests.settimeout(_LOOK_FOR_PARENT)
            try:
                args = _receive(requests)
            except TimeoutError:
                continue
            except EOFError:
                break
            # the parent looks at the clock; this is for the case that it is gone
            signal.setitimer(signal.ITIMER_REAL, self.timeout + 1)
            answer = _answer(self.function, args)
            signal.setitimer(signal.ITIMER_REAL, 0)
            requests.settimeout(None)
            _send(requests, answer)

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _parent=None, _child=None, _socket=None)

    def __del__(self) -> None:
        if getattr(self, '_parent', None) is not None:
            self.close()


def _answer(function: Callable, args: tuple) -> list[memoryview]:
    """Packed: an error or None, its traceback, and what the function returned."""
    try:
        return _pack((None, '', function(*args)))
    except Exception as e:
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(e))
        except Exception:  # whatever an exception's own way of being pickled raises
            e = RuntimeError(f'{type(e).__name__}: {e}')
        return _pack((e, trace, None))


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
