"""Safe access to untrusted SQLite files: a database can contain code, so only our own schemas are opened."""
import errno
import marshal
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from vop_mm.utils.files import full_disk_error
from vop_mm.utils.locks import locked

_STEPS_PER_CHECK = 100_000  # steps of SQLite's virtual machine between two checks of the limit
_MAX_VALUE = 12_000_000  # maximum bytes of a value; configs are the longest
_ROWS_PER_CHECK = 16  # rows between two checks of the size limit
_MAX_EXCESS = 16_000_000  # bytes that an answer may exceed the size of the file by
_JOURNAL_END = bytes.fromhex('d9d505f920a163d7')  # end of a journal that names other files
_ROLLBACK_TIMEOUT = 5.  # seconds to wait for another process that cleans up after a killed one


class Database:
    """An SQLite file with known tables and nothing else: no views, triggers, virtual tables or computed columns.

    The file is opened read-only until something is written. Every problem with it raises ValueError with its name, in
    every call. A call that needs more steps or returns more bytes than the size of the file explains is aborted.

    Args:
        path (str | Path): SQLite file.
        schemas (Mapping[str, Sequence[str]]): SQL statements that create the tables and indexes of each supported
            version; the last one is the newest.
        create (bool): Create the file. Defaults to False.
        upgrade (Sequence[str]): SQL statements that upgrade any older version to the newest before writing.
    """

    def __init__(self, path: str | Path, schemas: Mapping[str, Sequence[str]], create: bool = False,
                 upgrade: Sequence[str] = ()) -> None:
        self.path, self._schemas, self._upgrade = Path(path), schemas, upgrade
        self._writes, self._steps_left = create, 0
        if create:
            self._create(list(schemas.values())[-1])
        self._db = self._open(create)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def rows(self, query: str, values: Sequence = ()) -> list[tuple]:
        """Return all rows of a query."""
        with self._reading():
            return list(self._fetch(query, values))

    def parts(self, query: str, size: int) -> Iterator[list[tuple]]:
        """Yield the rows of a query in parts. Nothing may be written in the meantime."""
        rows = self._fetch(query, ())
        while True:
            with self._reading():
                some = list(islice(rows, size))
            if not some:
                return
            yield some

    def write(self, statement: str, values: Sequence = ()) -> int:
        """Execute a statement within a :meth:`transaction`; return the number of an inserted row."""
        return self._execute(statement, values).lastrowid

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Apply all changes within the context, or none; OSError for no space, no permission, or a link."""
        self.allow_writing()
        try:
            with self._db:
                yield
        except sqlite3.OperationalError as e:
            self._interrupted(e)
            raise _not_written(self.path, e) from None
        except sqlite3.Error as e:
            raise self.damaged(e) from None

    def allow_writing(self) -> None:
        """Reopen the file for writing and upgrade its tables."""
        if self._writes:
            return
        if not stat.S_ISREG(os.lstat(self.path).st_mode):
            raise OSError(errno.ELOOP, 'refusing to write through a link', str(self.path))
        db = self._open(True)
        self._db.close()
        self._db, self._writes = db, True
        if self.version != list(self._schemas)[-1]:
            try:
                self._steps_left = self._allowed()
                db.execute('BEGIN IMMEDIATE')
                with db:
                    if self._find_version(db) != list(self._schemas)[-1]:
                        for statement in self._upgrade:
                            db.execute(statement)
                self.version = self._find_version(db)
            except sqlite3.OperationalError as e:
                self._interrupted(e)
                raise _not_written(self.path, e) from None

    def damaged(self, why: object) -> ValueError:
        """Build the error for a damaged file."""
        why = ''.join(c if c.isprintable() else '?' for c in str(why)[:200])
        return ValueError(f'{self.path} is not a catalog of this project, or is damaged ({why})')

    # -- opening ------------------------------------------------------------------------------------------------------
    def _create(self, schema: Sequence[str]) -> None:
        try:
            with closing(sqlite3.connect(self.path)) as db:
                # two rows with vectors of 2 kB do not fit into SQLite's default page of 4 kB
                db.execute('PRAGMA page_size = 16384')
                db.executescript(';\n'.join(('BEGIN', *schema, 'COMMIT')))
        except sqlite3.Error as e:
            raise _not_written(self.path, e) from None

    def _open(self, write: bool) -> sqlite3.Connection:
        """Connect, and check everything that SQLite would act on.

        The file is never opened in any other way: closing it would release this process's other locks.
        """
        _check_sidecar(self.path)
        db = self._connect(write)
        try:
            with self._reading():
                self._steps_left = self._allowed()
                # changes left by a killed process are rolled back before the tables are checked
                self.version = self._retry(lambda: self._find_version(db))
        except BaseException:
            db.close()
            raise
        if self.version is None:
            for name in ('wal', 'shm'):  # they did not exist before
                with suppress(OSError):
                    os.unlink(_sidecar(self.path, name))
            raise self.damaged('it uses a write-ahead log')
        return db

    def _connect(self, write: bool) -> sqlite3.Connection:
        name = quote(os.fsencode(os.path.abspath(self.path)))
        # several threads of the web page may use it, one at a time
        db = sqlite3.connect(f'file:{name}?mode={"rw" if write else "ro"}', uri=True, timeout=60,
                             check_same_thread=False)
        if hasattr(db, 'setlimit'):  # Python 3.11
            for limit, value in ((sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE), (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
                                 (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1), (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000)):
                db.setlimit(limit, value)
        if hasattr(db, 'setconfig'):  # Python 3.12
            db.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
            db.setconfig(sqlite3.SQLITE_DBCONFIG_TRUSTED_SCHEMA, False)
            db.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
            db.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)
        for pragma in ('trusted_schema = OFF', 'cell_size_check = ON', 'mmap_size = 0',
                       f'query_only = {"OFF" if write else "ON"}'):
            db.execute(f'PRAGMA {pragma}')  # does not access the file
        db.set_progress_handler(self._step, _STEPS_PER_CHECK)
        return db

    def _find_version(self, db: sqlite3.Connection) -> str | None:
        """Return the schema version if the tables match it exactly; None for a file with a write-ahead log."""
        if db.execute('PRAGMA journal_mode').fetchone() != ('delete', ):
            db.close()
            return None
        found = {}
        for kind, name, sql in db.execute('SELECT type, name, sql FROM sqlite_master LIMIT 100'):
            found[kind, name] = sql if sql is None or isinstance(sql, str) else b''
        made = {' '.join(sql.split()) for sql in found.values() if sql}
        own = {key for key, sql in found.items() if sql is None and key[0] == 'index'}
        for version, schema in self._schemas.items():
            wanted = {' '.join(statement.split()) for statement in schema}
            wanted |= {'CREATE TABLE sqlite_sequence(name,seq)'}
            if made == wanted and len(found) == len(wanted) + len(own):
                return version
        raise self.damaged('unexpected tables')

    # -- asking -------------------------------------------------------------------------------------------------------
    def _execute(self, statement: str, values: Sequence) -> sqlite3.Cursor:
        self._steps_left = self._allowed()
        return self._retry(lambda: self._db.execute(statement, values))

    def _fetch(self, query: str, values: Sequence) -> Iterator[tuple]:
        """Yield rows up to a size limit: in a crafted file, many values share the same pages."""
        with closing(self._execute(query, values)) as rows:  # an open cursor keeps a lock from Python 3.13 on
            left = 4 * os.stat(self.path).st_size + _MAX_EXCESS
            while batch := rows.fetchmany(_ROWS_PER_CHECK):
                left -= len(marshal.dumps(batch))  # ten times faster than inspecting each value
                if left < 0:
                    raise self.damaged('more values than fit into the file')
                yield from batch

    def _allowed(self) -> int:
        """Return the allowed number of steps: some tenths of a second, plus a hundred per byte of the file."""
        return 300 + os.stat(self.path).st_size // 1000

    def _step(self) -> bool:
        self._steps_left -= 1
        return self._steps_left < 0

    def _interrupted(self, error: sqlite3.Error) -> None:
        # SQLite takes Ctrl-C within our progress handler for a request to stop
        if str(error) == 'interrupted' and self._steps_left >= 0:
            raise KeyboardInterrupt from None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Convert SQLite's errors to those that callers expect."""
        try:
            yield
        except sqlite3.OperationalError as e:
            self._interrupted(e)
            if str(e) in ('disk I/O error', 'unable to open database file', 'database is locked'):
                raise OSError(f'{self.path} cannot be read: {e}') from None
            raise self.damaged('a query takes too long' if str(e) == 'interrupted' else e) from None
        except (sqlite3.Error, MemoryError, UnicodeError, OverflowError) as e:
            raise self.damaged(e) from None

    def _retry(self, call):
        """Execute a call; if a process was killed in the middle of a change, roll the change back first."""
        end = time.monotonic() + _ROLLBACK_TIMEOUT
        while True:
            try:
                return call()
            except sqlite3.OperationalError as e:
                if self._writes or 'readonly' not in str(e) and 'unable to open' not in str(e):
                    raise
                if not os.path.exists(_sidecar(self.path, 'journal')):
                    raise
            self._roll_back(end)

    def _roll_back(self, end: float) -> None:
        try:
            with locked(self.path.resolve().parent / 'lock', 'in use'):
                _check_sidecar(self.path)
                with closing(self._connect(True)) as db:
                    db.execute('SELECT count(*) FROM sqlite_master')
        except BlockingIOError:  # the process that holds the lock does the same
            if time.monotonic() > end:
                raise BlockingIOError(f'another process is changing {self.path}') from None
            time.sleep(0.1)
        except (OSError, sqlite3.OperationalError):
            raise OSError(f'{self.path} has an unfinished change, and cannot be restored without permission '
                          'to write') from None


def _check_sidecar(path: Path) -> None:
    """Check the auxiliary files of a database that SQLite would open."""
    for name in ('wal', 'shm'):
        if os.path.lexists(_sidecar(path, name)):
            raise ValueError(f'{_sidecar(path, name)} does not belong to an index of this project')
    journal = _sidecar(path, 'journal')
    try:
        mode = os.lstat(journal).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise ValueError(f'{journal} does not belong to an index of this project')
    try:
        with open(journal, 'rb') as file:
            file.seek(max(os.fstat(file.fileno()).st_size - len(_JOURNAL_END), 0))
            names_others = file.read() == _JOURNAL_END
    except FileNotFoundError:  # the writer has finished
        return
    if names_others:  # SQLite may delete the files that such a journal names
        raise ValueError(f'{journal} names other files and does not belong to an index of this project')


def _sidecar(path: Path, what: str) -> str:
    return f'{os.path.realpath(path)}-{what}'


def _not_written(path: Path, error: sqlite3.Error) -> OSError:
    if 'disk is full' in str(error):
        return full_disk_error(path)
    return OSError(f'{path} cannot be written: {error}')
