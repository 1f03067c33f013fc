"""What an index knows of its files: names, content, moments and vectors, in an SQLite file."""
import errno
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vop_mm.utils.files import full_disk_error

_SCHEMA = """
-- of 4 kB, SQLite's own, two rows with vectors of 2 kB would not fill one
PRAGMA page_size = 16384;
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
-- BLOB: a name needn't be UTF-8
CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER, mtime_ns INTEGER, hash TEXT,
                    error TEXT);
CREATE INDEX files_by_hash ON files (hash);
-- AUTOINCREMENT: a number is never given twice, so that a vector left in an index by accident is nobody's
CREATE TABLE clips (id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL REFERENCES files, start REAL NOT NULL,
                    stop REAL NOT NULL, vector BLOB NOT NULL);
CREATE INDEX clips_by_file ON clips (file);
-- what the index of vectors has not been told yet
CREATE TABLE changes (clip INTEGER PRIMARY KEY, added INTEGER NOT NULL);
COMMIT;
"""
_SOME = 500  # values in a query; old versions of SQLite take 999


class FileState(NamedTuple):
    """A file as it was when it was indexed: bytes, time of its last change in ns, hash; ``error``: why it isn't."""
    size: int | None
    mtime_ns: int | None
    hash: str | None
    error: str | None


class Clip(NamedTuple):
    """A window of a file: path below the folder, start and end in seconds."""
    path: str
    start: float
    end: float


class Catalogue:
    """Files, clips and vectors. It is the truth: the index of vectors can be made from it again.

    Every change stands in ``changes`` until the index has it, in the same transaction: killed at any moment, nothing
    is lost and nothing is there twice.

    Args:
        path (str | Path): The file.
        create (bool): Make it. Defaults to False.

    Raises:
        FileNotFoundError: There is none, and none is to be made.
        PermissionError: It can't be read.
        OSError: It can't be made.
        ValueError: It is something else, or damaged.
    """

    def __init__(self, path: str | Path, create: bool = False) -> None:
        path = Path(path)
        if not create and not path.is_file():
            raise FileNotFoundError(f'no search index: {path.parent}')
        if not create and not os.access(path, os.R_OK):  # SQLite doesn't say why
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        self._path = path
        # several threads of a web page may ask, one at a time
        self._db = sqlite3.connect(path, timeout=60, check_same_thread=False)
        try:
            if create:
                self._db.executescript(_SCHEMA)
            self._db.execute('SELECT count(*) FROM meta').fetchone()
        except sqlite3.DatabaseError as e:
            self._db.close()
            if create:
                raise _not_written(path, e) from None
            raise ValueError(f'{path} is not a catalogue of this project, or is damaged ({e})') from None

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is changed in it."""
        try:
            with self._db:
                yield
        except sqlite3.OperationalError as e:
            raise _not_written(self._path, e) from None

    # -- settings -----------------------------------------------------------------------------------------------------
    def get(self, key: str, default: Any = None) -> Any:
        """A setting, as it was given to :meth:`set`."""
        row = self._db.execute('SELECT value FROM meta WHERE key = ?', (key, )).fetchone()
        return json.loads(row[0]) if row else default

    def set(self, key: str, value: Any) -> None:
        """Keep a setting that JSON can hold."""
        self._db.execute('INSERT OR REPLACE INTO meta VALUES (?, ?)', (key, json.dumps(value)))

    # -- files --------------------------------------------------------------------------------------------------------
    def files(self) -> dict[str, FileState]:
        """All files, by path."""
        return {os.fsdecode(row[0]): FileState(*row[1:])
                for row in self._db.execute('SELECT path, size, mtime_ns, hash, error FROM files ORDER BY path')}

    def file(self, path: str) -> FileState | None:
        """One file, if it is known."""
        row = self._db.execute('SELECT size, mtime_ns, hash, error FROM files WHERE path = ?',
                               (os.fsencode(path), )).fetchone()
        return row and FileState(*row)

    def put_file(self, path: str, state: FileState, clips: Sequence[tuple[float, float]] = (),
                 vectors: np.ndarray | Sequence = ()) -> None:
        """A file and its clips, in place of what was under its path.

        Args:
            path (str): Below the folder.
            state (FileState): As it was before it was read.
            clips (Sequence[tuple[float, float]]): Start and end of each, in seconds, [n].
            vectors (np.ndarray): float32 [n, D].
        """
        self.remove_file(path)
        file = self._db.execute('INSERT INTO files (path, size, mtime_ns, hash, error) VALUES (?, ?, ?, ?, ?)',
                                (os.fsencode(path), *state)).lastrowid
        for (start, end), vector in zip(clips, vectors, strict=True):
            clip = self._db.execute('INSERT INTO clips (file, start, stop, vector) VALUES (?, ?, ?, ?)',
                                    (file, start, end, np.asarray(vector, '<f4').tobytes())).lastrowid
            self._db.execute('INSERT INTO changes VALUES (?, 1)', (clip, ))

    def touch_file(self, path: str, state: FileState) -> None:
        """Note another time of a file whose content is the same."""
        self._db.execute('UPDATE files SET size = ?, mtime_ns = ? WHERE path = ?',
                         (state.size, state.mtime_ns, os.fsencode(path)))

    def remove_file(self, path: str) -> None:
        """Forget a file and its clips; nothing where there is none."""
        row = self._db.execute('SELECT id FROM files WHERE path = ?', (os.fsencode(path), )).fetchone()
        if row:
            self._db.execute('INSERT OR REPLACE INTO changes SELECT id, 0 FROM clips WHERE file = ?', row)
            self._db.execute('DELETE FROM clips WHERE file = ?', row)
            self._db.execute('DELETE FROM files WHERE id = ?', row)

    def clips_of_content(self, digest: str) -> tuple[list[tuple[float, float]], list[np.ndarray]] | None:
        """Clips and vectors of a file that has this content, if one is known."""
        row = self._db.execute('SELECT path FROM files WHERE hash = ? AND error IS NULL LIMIT 1', (digest, )).fetchone()
        return self.clips_of_file(os.fsdecode(row[0])) if row else None

    def clips_of_file(self, path: str) -> tuple[list[tuple[float, float]], list[np.ndarray]]:
        """Start and end, in seconds, and vector of each clip of a file."""
        rows = self._db.execute('SELECT start, stop, vector FROM clips JOIN files ON files.id = clips.file '
                                'WHERE path = ? ORDER BY start', (os.fsencode(path), )).fetchall()
        return [row[:2] for row in rows], [np.frombuffer(row[2], '<f4') for row in rows]

    # -- clips --------------------------------------------------------------------------------------------------------
    def num_clips(self) -> int:
        """How many clips."""
        return self._db.execute('SELECT count(*) FROM clips').fetchone()[0]

    def clips(self, ids: Sequence[int]) -> dict[int, Clip]:
        """Clips by number; those that are gone are left out."""
        found = {}
        for first in range(0, len(ids), _SOME):
            some = [int(i) for i in ids[first:first + _SOME]]
            rows = self._db.execute(
                'SELECT clips.id, path, start, stop FROM clips JOIN files ON files.id = clips.file '
                f'WHERE clips.id IN ({",".join("?" * len(some))})', some)
            found.update((row[0], Clip(os.fsdecode(row[1]), *row[2:])) for row in rows)
        return found

    def number(self, path: str, start: float) -> int | None:
        """Of the clip of a file that begins there, in seconds. No other clip ever gets it."""
        row = self._db.execute('SELECT clips.id FROM clips JOIN files ON files.id = clips.file '
                               'WHERE path = ? AND start = ?', (os.fsencode(path), start)).fetchone()
        return row and row[0]

    # -- what the index of vectors lacks ------------------------------------------------------------------------------
    def removed(self) -> list[int]:
        """Numbers of clips that the index is to forget."""
        return [row[0] for row in self._db.execute('SELECT clip FROM changes WHERE added = 0')]

    def added(self, batch: int = 10_000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Clips that the index is to learn of: numbers int64 [n] and vectors float32 [n, D], ``batch`` at a time."""
        rows = self._db.execute('SELECT id, vector FROM clips JOIN changes ON changes.clip = clips.id '
                                'WHERE added = 1 ORDER BY id')
        while some := rows.fetchmany(batch):
            yield np.array([row[0] for row in some], np.int64), np.stack([np.frombuffer(row[1], '<f4') for row in some])

    def num_changes(self) -> int:
        """How many clips the index has not been told of."""
        return self._db.execute('SELECT count(*) FROM changes').fetchone()[0]

    def changes_done(self) -> None:
        """Note that the index has been told everything."""
        self._db.execute('DELETE FROM changes')

    def all_changed(self) -> None:
        """Note that the index knows nothing."""
        self._db.execute('DELETE FROM changes')
        self._db.execute('INSERT INTO changes SELECT id, 1 FROM clips')


def _not_written(path: Path, error: sqlite3.Error) -> OSError:
    if 'disk is full' in str(error):
        return full_disk_error(path)
    return OSError(f'{path} can not be written: {error}')
