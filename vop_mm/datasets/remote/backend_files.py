"""Files read by MMEngine's storage backends."""
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.fileio import LocalBackend, get_file_backend

from vop_mm.utils.cli import one_line

from ..errors import VideoDecodeError
from .addresses import public_address, without_secrets
from .scratch import FileStat


class BackendFiles:
    """Reads files through an MMEngine backend: each completely, into memory, before its size is known.

    Args:
        backend_args (dict): Backend config, ``dict(backend='petrel', ...)``.
    """

    def __init__(self, backend_args: dict) -> None:
        self.backend_args = dict(backend_args)
        self._opened = None  # (pid, backend)
        self.is_local = isinstance(self._backend(), LocalBackend)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_opened': None}

    def stat(self, address: str) -> FileStat:
        """Return an empty :class:`FileStat`: MMEngine backends do not report sizes."""
        return FileStat(None, None)

    @contextmanager
    def open(self, address: str) -> Iterator[tuple[FileStat, Iterator[bytes]]]:
        """Read a file; see :meth:`HttpFiles.open`."""
        content = self._ask(address, lambda backend: bytes(backend.get(address)))
        yield FileStat(len(content), None), iter([content])

    def list(self, address: str) -> dict[str, FileStat]:
        """List all files below an address; see :meth:`FsspecFiles.list`."""
        names = self._ask(address, lambda backend: sorted(
            backend.list_dir_or_file(address, list_dir=False, recursive=True)))
        return {name: FileStat(None, None) for name in names}

    def _ask(self, address: str, call):
        try:
            return call(self._backend())
        except Exception as e:  # each backend has its own errors
            raise VideoDecodeError(public_address(address), without_secrets(one_line(e))) from None

    def _backend(self):
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), get_file_backend(backend_args=dict(self.backend_args))
        return self._opened[1]
