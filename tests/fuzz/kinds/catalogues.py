"""The SQLite file of an index: damaged bytes, and schemas that somebody crafted."""
import contextlib
import os
import random
import struct
from pathlib import Path

from vop_mm.search import SearchIndex
from vop_mm.search.page.collection import Collection

from ..harness import Case, Kind, WrongResult
from ..mutate import mutate_bytes
from ..world import QUERY, World, check_hits, compare_hits, connect

_ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT'
_CRAFTED = [
    # views in place of tables, some that never end
    f"CREATE VIEW meta AS {_ENDLESS} 'x' AS key, 'y' AS value FROM n",
    f'CREATE VIEW meta AS {_ENDLESS} key, value FROM old_meta, n WHERE i < 300000000',
    'CREATE VIEW meta AS SELECT key, value FROM old_meta',
    "CREATE VIEW meta AS SELECT key, replace(value, 'a', zeroblob(1000000)) AS value FROM old_meta",
    f'CREATE VIEW clips AS {_ENDLESS} i AS id, 1 AS file, 0. AS start, 1. AS stop, zeroblob(256) AS vector FROM n',
    "CREATE VIEW clips AS SELECT id, file, '\"><script>alert(1)</script>' AS start, stop, vector FROM old_clips",
    'CREATE VIEW files AS SELECT * FROM old_files',
    f"CREATE VIEW files AS {_ENDLESS} i AS id, CAST('x' || i AS BLOB) AS path, 1 AS size, 1 AS mtime_ns, 'h' AS hash, "
    'NULL AS error FROM n',
    'CREATE VIEW changes AS SELECT 1 AS clip, 1 AS added',
    # views that ask for what only trusted schemas may
    "CREATE VIEW meta AS SELECT key, load_extension('evil') AS value FROM old_meta",
    "CREATE VIEW meta AS SELECT key, readfile('/etc/passwd') AS value FROM old_meta",
    "CREATE VIEW meta AS SELECT key, fts3_tokenizer('simple') AS value FROM old_meta",
    # triggers: they run when the index is brought up to date
    'CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM files; DELETE FROM clips; END',
    "CREATE TRIGGER t BEFORE DELETE ON changes BEGIN SELECT raise(ABORT, 'no'); END",
    "CREATE TRIGGER t AFTER UPDATE ON files BEGIN UPDATE files SET path = CAST('../../etc/passwd' AS BLOB); END",
    f'CREATE TRIGGER t AFTER INSERT ON changes BEGIN INSERT INTO changes {_ENDLESS} i + 100, 1 FROM n; END',
    'CREATE TRIGGER t AFTER DELETE ON files BEGIN DELETE FROM clips; END',
    # other objects
    'CREATE VIRTUAL TABLE v USING fts5(a)',
    'CREATE VIRTUAL TABLE meta USING fts5(key, value)',
    'CREATE VIRTUAL TABLE clips USING rtree(id, start, stop, a, b)',
    'CREATE INDEX i ON clips (abs(-9223372036854775808))',
    'CREATE INDEX i ON meta (length(value)) WHERE random() > 0',
    'CREATE TABLE extra (a)',
    'CREATE TABLE sqlite_stat1(tbl, idx, stat)',
    'CREATE TABLE meta (key, value AS (randomblob(2000000000)))',
    'CREATE TABLE clips (id INTEGER PRIMARY KEY, file, start AS (0), stop, vector)',
    'CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID',
    'CREATE TABLE clips (id, file, start, stop)',
    'CREATE TABLE files (path)',
]
_VALUES = ("'text'", "'\"><script>'", 'NULL', '1e999', '-1e999', '-1', '9223372036854775807', '-9223372036854775808',
           "x'00'", 'zeroblob(3)', 'zeroblob(20000000)', "x'fffe'", "CAST(x'ff' AS TEXT)", "'../../etc/passwd'",
           "CAST('../../canary/victim.txt' AS BLOB)", "CAST('/etc/passwd' AS BLOB)", "x'0000c07f'", '0', '1e300', "''",
           "CAST('a' || char(10) || 'b' AS BLOB)", "CAST(char(27) || '[2J' AS BLOB)", 'randomblob(256)',
           "(SELECT replace(hex(zeroblob(64)), '00', x'0000c07f'))", "'a' || char(0) || 'b'")
_COLUMNS = (('clips', 'id'), ('clips', 'file'), ('clips', 'start'), ('clips', 'stop'), ('clips', 'vector'),
            ('files', 'id'), ('files', 'path'), ('files', 'size'), ('files', 'mtime_ns'), ('files', 'hash'),
            ('files', 'error'), ('meta', 'key'), ('meta', 'value'), ('changes', 'clip'), ('changes', 'added'))


def prepare(world: World) -> None:
    world.hits  # noqa: B018 - made now


def make(rng: random.Random, world: World, folder: Path) -> Case:
    index = world.copy_index(folder)
    file = index / 'catalogue.db'
    kind = rng.choice(('bytes', 'bytes', 'bytes', 'value', 'value', 'schema', 'schema', 'settings', 'beside',
                       'sql text'))
    if kind == 'bytes':
        content, about = mutate_bytes(rng, file.read_bytes())
        file.write_bytes(content)
    elif kind == 'beside':
        about = _beside(rng, world, index)
    else:
        with contextlib.closing(connect(index)) as db:
            db.execute('PRAGMA writable_schema = ON')
            about = dict(value=_values, schema=_schema, settings=_settings)[
                'schema' if kind == 'sql text' else kind](rng, db)
            if kind == 'sql text':
                _schema_text(rng, db)
    door = rng.choice(('search', 'search', 'page', 'update'))
    return Case(f'{kind}: {about}; {door}', ('index', 'catalogue.db'), dict(door=door, damaged=kind == 'bytes'))


def _values(rng: random.Random, db) -> str:
    table, column = rng.choice(_COLUMNS)
    value, row = rng.choice(_VALUES), rng.choice(('', ' WHERE rowid = 1', ' WHERE rowid % 2'))
    if table == 'changes':
        statement = f'INSERT OR REPLACE INTO changes ({column}, {"added" if column == "clip" else "clip"}) ' \
                    f'VALUES ({value}, 1)'
    else:
        statement = f'UPDATE OR REPLACE {table} SET {column} = {value}{row}'
    # wrong types where the schema forbids them: a file needn't have been written under its schema
    db.execute('PRAGMA ignore_check_constraints = ON')
    if rng.random() < .6:
        for name in ('meta', 'files', 'clips', 'changes'):
            _loosen(db, name)
    with contextlib.suppress(Exception):
        db.execute(statement)
    return statement


def _loosen(db, table: str) -> None:
    """The same rows in a table that declares no types and no constraints."""
    columns = [row[1] for row in db.execute(f'PRAGMA table_info({table})')]
    db.execute(f'CREATE TABLE loose ({", ".join(columns)})')
    db.execute(f'INSERT INTO loose SELECT * FROM {table}')
    db.execute(f'DROP TABLE {table}')
    db.execute(f'ALTER TABLE loose RENAME TO {table}')


def _schema(rng: random.Random, db) -> str:
    statement = rng.choice(_CRAFTED)
    words = statement.split()
    name = words[3] if words[1] == 'VIRTUAL' else words[2]
    if name in ('meta', 'clips', 'files', 'changes'):
        db.execute(f'ALTER TABLE {name} RENAME TO old_{name}')
    with contextlib.suppress(Exception):  # this SQLite may lack a module
        db.execute(statement)
    return statement


def _schema_text(rng: random.Random, db) -> None:
    """Damage the SQL that the schema is kept as."""
    with contextlib.suppress(Exception):
        rows = db.execute('SELECT rowid, sql FROM sqlite_master WHERE sql IS NOT NULL').fetchall()
        row, text = rng.choice(rows)
        place = rng.randrange(len(text))
        text = rng.choice((text[:place], text[:place] + rng.choice(('(', ')', '"', "'", ' AS (1)', ';')) + text[place:],
                           text.replace('INTEGER', 'TEXT'), f'{text} /* {"x" * 100_000} */'))
        db.execute('UPDATE sqlite_master SET sql = ? WHERE rowid = ?', (text, row))
        db.execute(f'UPDATE sqlite_master SET rootpage = {rng.choice((0, 1, 2, 99999, -1))} WHERE rowid = ?', (row, ))


def _settings(rng: random.Random, db) -> str:
    statement = rng.choice(('PRAGMA user_version = -1', 'PRAGMA application_id = 1', "PRAGMA encoding = 'UTF-16'",
                            'PRAGMA journal_mode = WAL', 'PRAGMA auto_vacuum = FULL', 'DROP TABLE changes',
                            'DROP TABLE files', 'DROP TABLE clips', 'DROP TABLE meta', 'DELETE FROM clips',
                            'DELETE FROM files', 'DROP INDEX files_by_hash', 'PRAGMA page_size = 512',
                            'PRAGMA page_size = 65536', 'PRAGMA schema_version = 2147483647',
                            'PRAGMA default_cache_size = 2147483647', 'INSERT INTO changes SELECT id, 0 FROM clips',
                            'INSERT INTO changes SELECT id, 7 FROM clips', 'INSERT INTO changes VALUES (99, 1)'))
    db.execute(statement)
    if 'page_size' in statement:
        db.execute('VACUUM')
    return statement


def _beside(rng: random.Random, world: World, index: Path) -> str:
    """Files that SQLite, or the index, looks for beside the catalogue."""
    victim, file = world.canary / 'victim.txt', index / 'catalogue.db'
    kind = rng.choice(('journal', 'wal', 'shm', 'wal link', 'journal link', 'lock link', 'vectors link',
                       'catalogue link', 'catalogue fifo', 'vectors fifo', 'lock fifo', 'catalogue folder',
                       'leftover link'))
    if kind == 'journal':  # hot, and names a file of others as that which it belongs to (SQLite removes it when done)
        name = os.fsencode(victim)
        size = 16384
        head = bytes.fromhex('d9d505f920a163d7') + struct.pack('>IIIII', 0, 1, file.stat().st_size // size, 512, size)
        check = sum(name) & 0xffffffff
        end = struct.pack('>I', 1) + name + struct.pack('>II', len(name), check) + bytes.fromhex('d9d505f920a163d7')
        (index / 'catalogue.db-journal').write_bytes(head.ljust(512, b'\0') + end)
    elif kind in ('wal', 'shm'):
        (index / f'catalogue.db-{kind}').write_bytes(rng.randbytes(rng.choice((0, 32, 40_000))))
    elif kind in ('wal link', 'journal link'):
        (index / f'catalogue.db-{kind.split()[0]}').symlink_to(victim)
    elif kind == 'lock link':
        (index / 'lock').unlink(missing_ok=True)
        (index / 'lock').symlink_to(victim)
    elif kind == 'vectors link':
        (index / 'vectors.faiss').unlink()
        (index / 'vectors.faiss').symlink_to(victim)
    elif kind == 'leftover link':
        (index / '.vop_mm.0123456789abcdef.x.tmp').symlink_to(world.canary)
        (index / '.new.x').symlink_to(world.canary)
    elif kind == 'catalogue link':
        file.unlink()
        file.symlink_to(victim)
    elif kind == 'catalogue folder':
        file.unlink()
        file.mkdir()
    else:
        path = index / dict(catalogue='catalogue.db', vectors='vectors.faiss', lock='lock')[kind.split()[0]]
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    return kind


def target(world: World, folder: Path, case: Case) -> None:
    index, door = folder / 'index', case.options['door']
    if door == 'update':
        world.searcher.build_index(folder / 'videos', index, prompts='good')
    if door == 'page':
        collection = Collection('good', index, world.searcher, 'good')
        status = collection.status()
        if not all(isinstance(text, str) for pair in status.failed for text in pair):
            raise WrongResult(f'files that failed: {status.failed!r:.80}')
        for found in collection.search(QUERY, 5):
            if not isinstance(found.number, int) or not isinstance(found.version, str):
                raise WrongResult(f'number or version of a clip: {found!r:.200}')
            with contextlib.suppress(FileNotFoundError):
                clip = collection.clip(found.number)
                with clip.file:
                    served = os.readlink(f'/proc/self/fd/{clip.file.fileno()}')
                if not served.startswith(str(folder.resolve())):
                    raise WrongResult(f'a file of somebody else would be served: {served}')
    hits = world.searcher.search(QUERY, index, 50, prompts='good', merge=False)
    with contextlib.closing(SearchIndex(index)) as search_index:
        check_hits(hits, search_index.videos)
        search_index.catalogue.files()
    if case.options['damaged']:
        compare_hits(world, hits)


KINDS = [Kind('sqlite', make, target, prepare)]
