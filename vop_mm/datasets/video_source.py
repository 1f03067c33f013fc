"""Where videos come from: a folder, an address, a backend of MMEngine, or a manifest."""
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
    """A video is not the one that it was to be."""


class VideoSource:
    """Gives each video of a collection a local path, wherever it is.

    A file that is not in a local folder is fetched to a temporary place while it is used, and taken away again. May be
    pickled, and used after a fork and from several threads.

    Args:
        root (str | os.PathLike): A folder; an address (``s3://bucket/videos``, ``gs://``, ``https://``, or another that
            fsspec knows); or a manifest (``.jsonl``), see :func:`read_manifest`. Empty: names are paths of their own.
        backend_args (dict, optional): With ``backend``, a storage backend of MMEngine reads the files:
            ``dict(backend='petrel')``. Otherwise options of fsspec's file system, ``dict(anon=True)``, or ``headers``
            for a web server.
        cache_bytes (int, optional): Bytes that the files which this process fetched may take at once. None:
            ``VOP_MM_MAX_FETCHED``, by default 10 GB.
        timeout (float): Seconds to connect to a web server, and between two pieces of a file. Defaults to 60.

    Attributes:
        is_local (bool): Whether it is a local folder, where a path is all that is needed.
        names_videos (bool): Whether somebody has named each video, whatever its extension: in a manifest.

    Raises:
        AnnotationError: The manifest is ill-formed.
        ImportError: The package that reads such addresses is not installed.
        ValueError: Not an address, or options that nobody takes.

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
        """Raise ``NotADirectoryError`` where videos are to be in a local folder, and it is not there."""
        if self.is_local and not os.path.isdir(self.root or '.'):
            raise NotADirectoryError(f'no such folder of videos: {self}')

    def local(self, name: str, expected: FileStat | None = None) -> AbstractContextManager[str]:
        """A local path of a video, valid within the ``with``.

        Args:
            name (str): Relative to the root, or of the manifest.
            expected (FileStat, optional): What :meth:`stat` or :meth:`list` said: another content is an error.

        Returns:
            AbstractContextManager[str]: The path. Errors of a decoder that name it name the video instead.

        Raises:
            ValueError: The name leads out of the root, or is not in the manifest.
            VideoDecodeError: The file can't be fetched, or is larger than there may be.
        """
        reader, address = self._find(name)
        return nullcontext(address) if reader is None else self._fetched(name, reader, address, expected)

    def shown(self, name: str) -> str:
        """What a video is called in messages: its path, or its address without passwords and signatures.

        Raises:
            ValueError: As :meth:`local`.
        """
        return public_address(self._find(name)[1])

    def stat(self, name: str) -> FileStat:
        """Size of a video, and what changes when its content does, as far as they are known without reading it.

        Raises:
            ValueError: As :meth:`local`.
            VideoDecodeError: It can't be found.
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
        """All files, whatever their kind, with what is known of each without asking for it.

        Raises:
            ValueError: A web server doesn't list its files, and a local folder is listed by ``find_videos``.
            VideoDecodeError: The folder can't be listed.
        """
        if self._entries is not None:
            return {name: entry.stat for name, entry in self._entries.items()}
        reader = self._readers['']
        if reader is None or isinstance(reader, HttpFiles):
            raise ValueError(f'the files of {self} can not be listed: name them in a manifest (.jsonl)')
        return reader.list(self.root)

    def window(self, name: str) -> tuple[float | None, float | None]:
        """Start and end in seconds of the clip that a manifest means by a name; None: of the video."""
        entry = (self._entries or {}).get(self._entry_name(name))
        return (entry.start, entry.end) if entry else (None, None)

    # -- where a video is ---------------------------------------------------------------------------------------------
    def _find(self, name: str) -> tuple[Any, str]:
        """Who reads a video, and its address; nobody reads a local path."""
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
        """The manifest's own name of a video; an annotation may know it by the end of its path."""
        if self._entries is None or name in self._entries:
            return name
        if not hasattr(self, '_ends'):
            self._ends: dict[str, str | None] = {}
            for full, entry in self._entries.items():
                path = public_address(entry.url).partition('?')[0].partition('://')[2] or entry.url
                parts = path.split('/')
                for first, times in product(range(len(parts)), {'', full[full.rfind('#t='):] * ('#t=' in full)}):
                    end = '/'.join(parts[first:]) + times
                    self._ends[end] = None if end in self._ends else full  # of two, neither is meant
        return self._ends.get(name)

    # -- who reads it -------------------------------------------------------------------------------------------------
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
        if 'headers' in self._options:  # it may name any number of servers
            raise ValueError('headers are of one server: name its address, not a manifest')
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
                        raise ChangedVideoError(shown, f'another file than before: {known.size} bytes, mark '
                                                f'{known.tag}; now {stat.size}, {stat.tag}')
                path = kept.enter_context(scratch_file(shown, address.partition('?')[0], stat.size, chunks,
                                                       self.cache_bytes))
            try:
                yield path
            except VideoDecodeError as e:
                if e.path != path:
                    raise
                raise VideoDecodeError(shown, e.reason.replace(path, shown)) from None
