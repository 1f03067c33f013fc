"""Files in object stores and all other file systems that fsspec supports."""
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from vop_mm.utils.cli import one_line, printable

from ..errors import VideoDecodeError
from .addresses import public_address, scheme_of, without_secrets
from .scratch import FileStat

_BLOCK = 8 << 20
_STORES = ('s3', 's3a', 'gs', 'gcs')
_TAGS = ('ETag', 'etag', 'LastModified', 'last_modified', 'mtime', 'updated', 'created')


class FsspecFiles:
    """Reads files through fsspec. Each process has its own connections.

    Args:
        address (str): Address of a file or folder, which determines the file system.
        options (dict, optional): Options of fsspec's file system: ``dict(anon=True)``, ``dict(endpoint_url=...)`` for
            S3.

    Raises:
        ImportError: The package for such addresses is not installed.
        ValueError: The scheme is unknown.
    """

    def __init__(self, address: str, options: dict[str, Any] | None = None) -> None:
        self.scheme, self.address, self.options = scheme_of(address), address, dict(options or {})
        if self.scheme in _STORES:
            self.options.setdefault('use_listings_cache', False)  # a file may be replaced during the run
        fsspec.get_filesystem_class(self.scheme)
        self._opened: tuple[int, Any] | None = None  # (pid, file system)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_opened': None}

    def stat(self, address: str) -> FileStat:
        """Return size and tag of a file.

        Raises:
            VideoDecodeError: The file can't be read.
        """
        with _one_kind_of_error(address):
            return self._stat(self._system(), address)

    @contextmanager
    def open(self, address: str) -> Iterator[tuple[FileStat, Iterator[bytes]]]:
        """Open a file; see :meth:`HttpFiles.open`."""
        with _one_kind_of_error(address):
            system = self._system()
            stat = self._stat(system, address)
            # no cache: one request per block, pinned to the same content if the store supports that
            file = system.open(self._path(address), 'rb', block_size=_BLOCK, cache_type='none')
        with file:
            yield stat, self._chunks(address, file)

    def list(self, address: str) -> dict[str, FileStat]:
        """List all files below an address, by their relative names.

        Raises:
            VideoDecodeError: The address can't be listed.
        """
        folder = self._path(address).rstrip('/') + '/'
        with _one_kind_of_error(address):
            found = self._system().find(folder, detail=True)
        return {path[len(folder):]: _stat(info) for path, info in sorted(found.items())
                if path.startswith(folder) and not path.endswith('/')}

    def _chunks(self, address: str, file) -> Iterator[bytes]:
        while True:
            with _one_kind_of_error(address):
                chunk = file.read(_BLOCK)
            if not chunk:
                return
            yield chunk

    def _stat(self, system, address: str) -> FileStat:
        info = system.info(self._path(address))
        if info.get('type') == 'directory':
            raise VideoDecodeError(public_address(address), 'a folder, not a file')
        return _stat(info)

    def _path(self, address: str) -> str:
        return fsspec.get_filesystem_class(self.scheme)._strip_protocol(address)

    def _system(self):
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), fsspec.core.url_to_fs(self.address, **self.options)[0]
        return self._opened[1]


def _stat(info: dict) -> FileStat:
    tag = next((str(info[key]) for key in _TAGS if info.get(key)), None)
    size = info.get('size')
    return FileStat(size if isinstance(size, int) else None, tag and printable(tag))


@contextmanager
def _one_kind_of_error(address: str) -> Iterator[None]:
    try:
        yield
    except VideoDecodeError:
        raise
    except FileNotFoundError:
        raise VideoDecodeError(public_address(address), 'no such file') from None
    except Exception as e:  # each kind of store has its own errors
        raise VideoDecodeError(public_address(address), without_secrets(one_line(e))) from None
