"""Catalog of an index in an SQLite file: names and content hashes of files, clip times and vectors."""
import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vop_mm.utils.paths import path_below

from .checksums import clip_checksums, text_checksum
from .database import Database
from .meta import MAX_DIM, read_meta
from .vectors.vector_index import check_vectors

# BLOB: a name may not be UTF-8
_FILES = ('CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER, mtime_ns INTEGER, '
          'hash TEXT, error TEXT{})')
# AUTOINCREMENT: numbers are never reused, so that a stale vector in an index never matches another clip
_CLIPS = ('CREATE TABLE clips (id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL REFERENCES files, '
          'start REAL NOT NULL, stop REAL NOT NULL, vector BLOB NOT NULL{})')
_OTHERS = (
    'CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)',
    'CREATE INDEX files_by_hash ON files (hash)',
    'CREATE INDEX clips_by_file ON clips (file)',
    # changes that the vector index has not received yet
    'CREATE TABLE changes (clip INTEGER PRIMARY KEY, added INTEGER NOT NULL)',
)
_SUM = ', checksum INTEGER'
_SCHEMAS = {'first': (_FILES.format(''), _CLIPS.format(''), *_OTHERS),
            'checksums': (_FILES.format(_SUM), _CLIPS.format(_SUM), *_OTHERS)}
_UPGRADE = tuple(f'ALTER TABLE {table} ADD COLUMN checksum INTEGER' for table in ('files', 'clips'))
_SQL_BATCH = 500  # values per query; old versions of SQLite accept at most 999
_MAX_PATH = 65536  # bytes
_MAX_REASON = 1000  # maximum characters of a reason


class FileState(NamedTuple):
    """State of a file when it was indexed: bytes, mtime in ns, hash; ``error``: why it could not be indexed."""
    size: int | None
    mtime_ns: int | None
    hash: str | None
    error: str | None


class Clip(NamedTuple):
    """A window of a file: path relative to the folder, start and end in seconds."""
    path: str
    start: float
    end: float


class Catalogue:
    """Files, clips and vectors. It is the source of truth: the vector index can be rebuilt from it.

    Every change is recorded in ``changes``, in the same transaction, until the vector index has it: if the process is
    killed, nothing is lost or duplicated. The file may come from an untrusted source, so every value read is checked.

    Args:
        path (str | Path): SQLite file.
        create (bool): Create the file. Defaults to False.

    Raises:
        OSError: The file is missing, or can't be read or created.
        ValueError: The file is something else, or damaged. Every method may raise this.
    """

    def __init__(self, path: str | Path, create: bool = False) -> None:
        path = Path(path)
        self.folder = path.parent
        if not create and not path.is_file():
            raise FileNotFoundError(f'no search index: {self.folder}')
        if not create and not os.access(path, os.R_OK):  # SQLite doesn't report the reason
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        if not create and os.path.dirname(os.path.realpath(path)) != os.path.realpath(path.parent):
            raise ValueError(f'{path} is a link that leads out of the index')
        self._db = Database(path, _SCHEMAS, create, _UPGRADE)
        self._known_widths: tuple[int, int] | None = None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Return a context manager within which all changes are applied, or none."""
        return self._db.transaction()

    def allow_writing(self) -> None:
        """Reopen the file for writing and upgrade its tables; otherwise the first transaction does so."""
        self._db.allow_writing()

    # -- settings -----------------------------------------------------------------------------------------------------
    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting as it was passed to :meth:`set`."""
        rows = self._db.rows('SELECT value FROM meta WHERE key = ?', (key, ))
        try:
            return read_meta(key, rows[0][0]) if rows else default
        except ValueError as e:
            raise self._db.damaged(e) from None

    def set(self, key: str, value: Any) -> None:
        """Store a setting that is serializable as JSON."""
        self._db.write('INSERT OR REPLACE INTO meta VALUES (?, ?)', (key, json.dumps(value)))

    # -- files --------------------------------------------------------------------------------------------------------
    def files(self) -> dict[str, FileState]:
        """Return all files by path."""
        rows = self._db.rows(f'SELECT path, size, mtime_ns, hash, error, {self._checksum("files")} FROM files '
                             'ORDER BY path')
        return dict(map(self._file, rows))

    def file(self, path: str) -> FileState | None:
        """Return the state of a file; None if it is unknown."""
        rows = self._db.rows(f'SELECT path, size, mtime_ns, hash, error, {self._checksum("files")} FROM files '
                             'WHERE path = ?', (os.fsencode(path), ))
        return self._file(rows[0])[1] if rows else None

    def put_file(self, path: str, state: FileState, clips: Sequence[tuple[float, float]] = (),
                 vectors: np.ndarray | Sequence = ()) -> None:
        """Add a file, in its state before it was read, and its clips, replacing an existing entry of its path.

        Vectors are float32 [n, D], of unit norm; in an index with the setting ``kept``, each is followed by that many
        values for re-ranking, [n, D + kept]. Others are refused (ValueError).
        """
        vectors = np.asarray(vectors, '<f4')
        if len(clips) != len(vectors):
            raise ValueError(f'{len(clips)} clips and {len(vectors)} vectors')
        if len(clips):
            self._check(vectors)
        self.remove_file(path)
        name = os.fsencode(path)
        file = self._db.write('INSERT INTO files (path, size, mtime_ns, hash, error, checksum) '
                              'VALUES (?, ?, ?, ?, ?, ?)', (name, *state, text_checksum(name, *state)))
        if not len(clips):
            return
        times = np.array(clips, float) + 0.  # SQLite does not preserve -0.0
        sums = clip_checksums([file] * len(clips), times, vectors)
        for (start, end), vector, checksum in zip(clips, vectors, sums.tolist()):
            clip = self._db.write('INSERT INTO clips (file, start, stop, vector, checksum) VALUES (?, ?, ?, ?, ?)',
                                  (file, start, end, vector.tobytes(), checksum))
            self._db.write('INSERT INTO changes VALUES (?, 1)', (clip, ))

    def touch_file(self, path: str, state: FileState) -> None:
        """Update the state of a file whose content is unchanged."""
        name = os.fsencode(path)
        self._db.write('UPDATE files SET size = ?, mtime_ns = ?, hash = ?, error = ?, checksum = ? WHERE path = ?',
                       (*state, text_checksum(name, *state), name))

    def remove_file(self, path: str) -> None:
        """Remove a file and its clips, if it exists."""
        for row in self._db.rows('SELECT id FROM files WHERE path = ?', (os.fsencode(path), )):
            self._db.write('INSERT OR REPLACE INTO changes SELECT id, 0 FROM clips WHERE file = ?', row)
            self._db.write('DELETE FROM clips WHERE file = ?', row)
            self._db.write('DELETE FROM files WHERE id = ?', row)

    def clips_of_content(self, digest: str) -> tuple[list[tuple[float, float]], list[np.ndarray]] | None:
        """Return clips and vectors of a file with this content hash; None if there is none."""
        rows = self._db.rows('SELECT path FROM files WHERE hash = ? AND error IS NULL LIMIT 1', (digest, ))
        return self.clips_of_file(self._path(rows[0][0])) if rows else None

    def clips_of_file(self, path: str) -> tuple[list[tuple[float, float]], list[np.ndarray]]:
        """Return start and end in seconds, and vector, of each clip of a file; see :meth:`put_file`."""
        rows = self._db.rows(f'{self._clip_columns()} FROM clips JOIN files ON files.id = clips.file '
                             'WHERE path = ? ORDER BY start', (os.fsencode(path), ))
        _, times, vectors = self._clips(rows)
        return [tuple(pair) for pair in times.tolist()], list(vectors)

    # -- clips --------------------------------------------------------------------------------------------------------
    def num_clips(self) -> int:
        """Return the number of clips."""
        # the condition makes each row a step of SQLite's virtual machine, which is how endless calls are detected
        return self._db.rows('SELECT count(*) FROM clips WHERE file > 0')[0][0]

    def clips(self, ids: Sequence[int]) -> dict[int, Clip]:
        """Return clips by number; missing ones are omitted."""
        return {number: clip for numbers, clips, _ in self.rows(ids) for number, clip in zip(numbers, clips)}

    def rows(self, ids: Sequence[int]) -> Iterator[tuple[list[int], list[Clip], np.ndarray]]:
        """Yield the existing clips in batches: their numbers, themselves, and vectors float32 [n, D + kept]."""
        for first in range(0, len(ids), _SQL_BATCH):
            part = [int(i) for i in ids[first:first + _SQL_BATCH]]
            rows = self._db.rows(f'{self._clip_columns()}, path FROM clips JOIN files ON files.id = clips.file '
                                 f'WHERE clips.id IN ({",".join("?" * len(part))})', part)
            numbers, times, vectors = self._clips([row[:-1] for row in rows])
            yield (numbers.tolist(), [Clip(self._path(row[-1]), *pair) for pair, row in zip(times.tolist(), rows)],
                   vectors)

    def number(self, path: str, start: float) -> int | None:
        """Return the number of a file's clip that begins at a time in seconds. Numbers are never reused."""
        rows = self._db.rows('SELECT clips.id FROM clips JOIN files ON files.id = clips.file '
                             'WHERE path = ? AND start = ?', (os.fsencode(path), start))
        return rows[0][0] if rows else None

    def vectors(self, batch: int = 10_000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all clips in batches: numbers int64 [n] and vectors float32 [n, D]."""
        return self._batches('', batch)

    # -- pending changes of the vector index --------------------------------------------------------------------------
    def removed(self) -> list[int]:
        """Return the numbers of clips to remove from the vector index."""
        return [row[0] for row in self._db.rows('SELECT clip FROM changes WHERE added = 0')]

    def added(self, batch: int = 10_000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the clips to add to the vector index in batches: numbers int64 [n] and vectors float32 [n, D]."""
        return self._batches('JOIN changes ON changes.clip = clips.id WHERE added = 1', batch)

    def num_changes(self) -> int:
        """Return the number of pending changes."""
        return self._db.rows('SELECT count(*) FROM changes WHERE clip IS NOT NULL AND added >= 0')[0][0]

    def changes_done(self) -> None:
        """Mark all changes as applied to the vector index."""
        self._db.write('DELETE FROM changes WHERE true')  # the condition: see num_clips

    def all_changed(self) -> None:
        """Mark all clips as missing from the vector index."""
        self.changes_done()
        self._db.write('INSERT INTO changes SELECT id, 1 FROM clips')

    # -- checked rows -------------------------------------------------------------------------------------------------
    def _checksum(self, table: str) -> str:
        return f'{table}.checksum' if self._db.version == 'checksums' else 'NULL'

    def _clip_columns(self) -> str:
        return f'SELECT clips.id, clips.file, start, stop, vector, {self._checksum("clips")}'

    def _batches(self, which: str, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in self._db.parts(f'{self._clip_columns()} FROM clips {which} ORDER BY clips.id', batch):
            numbers, _, vectors = self._clips(rows)
            yield numbers, np.ascontiguousarray(vectors[:, :self._widths(vectors.shape[1])[0]])

    def _clips(self, rows: list[tuple]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Convert _clip_columns rows to numbers int64 [n], times float64 [n, 2] and vectors float32 [n, D + kept]."""
        if not rows:
            return np.empty(0, np.int64), np.empty((0, 2)), np.empty((0, 0), np.float32)
        numbers, files, starts, stops, blobs, sums = zip(*rows)
        if not (set(map(type, starts + stops)) == {float} and set(map(type, blobs)) == {bytes}
                and set(map(type, files)) == {int} and set(map(type, sums)) <= {int, type(None)}):
            raise self._db.damaged('a clip has values of wrong types')
        width = sum(self._widths(len(blobs[0]) // 4))
        if set(map(len, blobs)) != {4 * width}:
            raise self._db.damaged(f'a vector does not have {width} values')
        times, vectors = np.array([starts, stops]).T, np.frombuffer(b''.join(blobs), '<f4').reshape(-1, width)
        if min(numbers) < 1:
            raise self._db.damaged('a clip has an invalid number')
        if not (np.isfinite(times).all() and (times[:, 0] >= 0).all() and (times[:, 0] <= times[:, 1]).all()):
            raise self._db.damaged('a clip has an invalid start or end')
        found = clip_checksums(files, times, vectors)
        noted = np.array([a if b is None else b for a, b in zip(found.tolist(), sums)], np.int64)
        if (found != noted).any():
            raise self._db.damaged(f'wrong checksum of clip {numbers[int((found != noted).argmax())]}')
        try:
            self._check(vectors)
        except ValueError as e:
            raise self._db.damaged(e) from None
        return np.array(numbers, np.int64), times, vectors

    def _widths(self, otherwise: int) -> tuple[int, int]:
        """Return the length of vectors, and the number of values stored after each."""
        if self._known_widths is None:
            settings = self.get('settings')
            self._known_widths = settings and (settings['dim'], settings.get('kept', 0))
        return self._known_widths or (min(max(otherwise, 1), MAX_DIM), 0)

    def _check(self, vectors: np.ndarray) -> None:
        dim, kept = self._widths(vectors.shape[-1])
        if kept and not (vectors.shape[-1] == dim + kept and np.isfinite(vectors).all()):
            raise ValueError(f'a vector is not followed by {kept} finite values')
        check_vectors(vectors[:, :dim] if kept else vectors, dim)

    def _file(self, row: tuple) -> tuple[str, FileState]:
        name, size, mtime_ns, digest, error, checksum = row
        path = self._path(name)
        if not ((size is None or type(size) is int and size >= 0) and (mtime_ns is None or type(mtime_ns) is int)
                and (digest is None or isinstance(digest, str)) and (error is None or isinstance(error, str))
                and (checksum is None or checksum == text_checksum(name, size, mtime_ns, digest, error))):
            raise self._db.damaged(f'invalid entry of {path!r}')
        return path, FileState(size, mtime_ns, digest, error and error[:_MAX_REASON])

    def _path(self, name: object) -> str:
        """Decode and check a path relative to the video folder."""
        if not isinstance(name, bytes) or len(name) > _MAX_PATH:
            raise self._db.damaged('a path has the wrong type')
        path = os.fsdecode(name)
        try:
            path_below('', path)
        except ValueError:
            raise self._db.damaged(f'the path {path!r} is outside of the video folder') from None
        return path
