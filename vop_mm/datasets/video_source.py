"""Sources of videos: a folder, an address, an MMEngine backend, or a manifest."""
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import product
from typing import Any

from vop_mm.utils.cli import printable
from vop_mm.utils.paths import path_below

from .errors import VideoDecodeError
from .remote import (
    BackendFiles,
    FileStat,
    FsspecFiles,
    HttpFiles,
    add_name,
    is_address,
    public_address,
    scratch_file,
)
from .remote.addresses import scheme_of
from .video_manifest import is_manifest, read_manifest

_HTTP = ('http', 'https')


class ChangedVideoError(VideoDecodeError):
    """A video differs from the expected one."""


class VideoSource:
    """Provides a local path for each video of a collection, wherever it is stored.

    A remote file is copied to a temporary file while it is used. Sources can be pickled, and used after a fork and from
    several threads.

    Args:
        root (str | os.PathLike): A folder; an address (``s3://bucket/videos``, ``gs://``, ``https://``, or another that
            fsspec supports); or a manifest (``.jsonl``), see :func:`read_manifest`. Empty: names are used as paths.
        backend_args (dict, optional): With ``backend``, an MMEngine storage backend reads the files:
            ``dict(backend='petrel')``. Otherwise options of fsspec's file system, ``dict(anon=True)``, or ``headers``
            for a web server.
        cache_bytes (int, optional): Maximum total bytes of the remote files that this process holds at once. None:
            ``VOP_MM_MAX_FETCHED``, by default 10 GB.
        timeout (float): Seconds to connect to a web server, and between two chunks of a file. Defaults to 60.

    Attributes:
        is_local (bool): True for a local folder, where a path is all that is needed.
        names_videos (bool): True for a manifest, which names each video explicitly, whatever its extension.

    Raises:
        AnnotationError: The manifest is ill-formed.
        ImportError: The package for such addresses is not installed.
        ValueError: The address is invalid, or an option is not supported.

    Examples:
        >>> source = VideoSource('https://example.org/videos')
        >>> with source.local('a.mp4') as path:
        ...     reader = PyAVReader(path)
    """

    def __init__(self, root: str | os.PathLike = '', backend_args: dict[str, Any] | None = None,
                 cache_bytes: int | None = None, timeout: float = 60.) -> None:
        self.root, self.cache_bytes = os.fspath(root), cache_bytes
        self._options, self._timeout = dict(backend_args or {}), timeout
        self._entries = None
        if is_manifest(self.root) and 'backend' not in self._options:
            self._entries = {entry.name: entry for entry in read_manifest(self.root)}
            self._readers = self._readers_of_manifest()
        else:
            self._readers = {'': self._reader(self.root)}
        self.names_videos = self._entries is not None
        self.is_local = not self.names_videos and self._readers[''] is None

    def __str__(self) -> str:
        return public_address(self.root)

    def require_folder(self) -> None:
        """Raise ``NotADirectoryError`` if the source is a local folder that doesn't exist."""
        if self.is_local and not os.path.isdir(self.root or '.'):
            raise NotADirectoryError(f'video folder not found: {self}')

    def local(self, name: str, expected: FileStat | None = None) -> AbstractContextManager[str]:
        """Return a context manager that gives a local path of a video.

        Args:
            name (str): Name relative to the root, or from the manifest.
            expected (FileStat, optional): Earlier result of :meth:`stat` or :meth:`list`; other content is an error.

        Returns:
            AbstractContextManager[str]: The path. Decoder errors that name it are changed to name the video.

        Raises:
            ValueError: The name leads out of the root, or is not in the manifest.
            VideoDecodeError: The file can't be fetched, or exceeds the limit.
        """
        reader, address = self._find(name)
        return nullcontext(address) if reader is None else self._fetched(name, reader, address, expected)

    def shown(self, name: str) -> str:
        """Return a video's path or address for messages, without passwords and signatures.

        Raises:
            ValueError: See :meth:`local`.
        """
        return public_address(self._find(name)[1])

    def stat(self, name: str) -> FileStat:
        """Return size and tag of a video, as far as they are known without reading it.

        Raises:
            ValueError: See :meth:`local`.
            VideoDecodeError: The video can't be found.
        """
        entry = (self._entries or {}).get(name)
        if entry is not None and None not in entry.stat:
            return entry.stat
        reader, address = self._find(name)
        if reader is not None:
            return reader.stat(address)
        try:
            status = os.stat(address)
        except OSError as e:
            raise VideoDecodeError(address, e.strerror or str(e)) from None
        return FileStat(status.st_size, str(status.st_mtime_ns))

    def list(self) -> dict[str, FileStat]:
        """List all files of any type, with the size and tag that the listing gives.

        Raises:
            ValueError: A web server can't be listed, and a local folder is listed by ``find_videos``.
            VideoDecodeError: The folder can't be listed.
        """
        if self._entries is not None:
            return {name: entry.stat for name, entry in self._entries.items()}
        reader = self._readers['']
        if reader is None or isinstance(reader, HttpFiles):
            raise ValueError(f'the files of {self} cannot be listed: list them in a manifest (.jsonl)')
        return reader.list(self.root)

    def window(self, name: str) -> tuple[float | None, float | None]:
        """Return start and end in seconds of the clip that a manifest means by a name; None for those of the video."""
        entry = (self._entries or {}).get(self._entry_name(name))
        return (entry.start, entry.end) if entry else (None, None)

    # -- locating a video ---------------------------------------------------------------------------------------------
    def _find(self, name: str) -> tuple[Any, str]:
        """Return the reader of a video (None for a local path) and its address."""
        if self._entries is not None:
            found = self._entry_name(name)
            if found is None:
                raise ValueError(f'{printable(public_address(name))!r} is not one video of the manifest {self.root}')
            url = self._entries[found].url
            if is_address(url):
                return self._readers[scheme_of(url)], url
            return None, path_below(os.path.dirname(self.root), url)
        reader = self._readers['']
        if reader is None:
            return None, path_below(self.root, name) if self.root else name
        if is_address(self.root):
            return reader, add_name(self.root, name)
        if is_address(name) or '::' in name:
            raise ValueError(f'{printable(public_address(name))!r} is an address, not a name')
        return reader, path_below(self.root, name)

    def _entry_name(self, name: str) -> str | None:
        """Return the manifest's name of a video; an annotation may use the end of its path instead."""
        if self._entries is None or name in self._entries:
            return name
        if not hasattr(self, '_ends'):
            self._ends: dict[str, str | None] = {}
            for full, entry in self._entries.items():
                path = public_address(entry.url).partition('?')[0].partition('://')[2] or entry.url
                parts = path.split('/')
                for first, times in product(range(len(parts)), {'', full[full.rfind('#t='):] * ('#t=' in full)}):
                    end = '/'.join(parts[first:]) + times
                    self._ends[end] = None if end in self._ends else full  # ambiguous: neither is meant
        return self._ends.get(name)

    # -- readers ------------------------------------------------------------------------------------------------------
    def _reader(self, root: str) -> BackendFiles | FsspecFiles | HttpFiles | None:
        if 'backend' in self._options:
            reader = BackendFiles(self._options)
            return None if reader.is_local else reader
        if not is_address(root):
            if self._options:
                raise ValueError(f'backend_args {sorted(self._options)} name no backend, and {root!r} is local')
            return None
        if scheme_of(root) not in _HTTP:
            return FsspecFiles(root, self._options)
        if unknown := self._options.keys() - {'headers'}:
            raise ValueError(f'backend_args of a web server are headers, not {sorted(unknown)}')
        return HttpFiles(self._options.get('headers'), self._timeout)

    def _readers_of_manifest(self) -> dict:
        if 'headers' in self._options:  # a manifest may name any number of servers
            raise ValueError('headers are for a single server: give its address instead of a manifest')
        schemes = {scheme_of(entry.url) for entry in self._entries.values() if is_address(entry.url)}
        if self._options and len(schemes - set(_HTTP)) > 1:
            raise ValueError(f'backend_args are of one kind of store, and {self.root} names {sorted(schemes)}')
        readers = {}
        for entry in self._entries.values():
            scheme = scheme_of(entry.url) if is_address(entry.url) else None
            if scheme not in readers:
                readers[scheme] = (None if scheme is None else HttpFiles(timeout=self._timeout) if scheme in _HTTP else
                                   FsspecFiles(entry.url, self._options))
        return readers

    @contextmanager
    def _fetched(self, name: str, reader, address: str, expected: FileStat | None) -> Iterator[str]:
        entry = (self._entries or {}).get(self._entry_name(name))
        shown = public_address(address)
        with ExitStack() as kept:
            with reader.open(address) as (stat, chunks):
                for known in (expected, entry and entry.stat):
                    if known is not None and stat.differs_from(known):
                        raise ChangedVideoError(shown, f'the file has changed: {known.size} bytes, mark '
                                                f'{known.tag}; now {stat.size}, {stat.tag}')
                path = kept.enter_context(scratch_file(shown, address.partition('?')[0], stat.size, chunks,
                                                       self.cache_bytes))
            try:
                yield path
            except VideoDecodeError as e:
                if e.path != path:
                    raise
                raise VideoDecodeError(shown, e.reason.replace(path, shown)) from None
