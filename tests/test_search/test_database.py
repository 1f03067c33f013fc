"""Catalogues that somebody else made: a database file is a program, and none of it runs."""
import os
import signal
import socket
from contextlib import closing

import numpy as np
import pytest

from tests.indexes import change, found, make_index, unit
from tests.tools import obey_permissions
from vop_mm.search import Catalogue, SearchIndex
from vop_mm.search.catalogue import FileState
from vop_mm.search.database import Database

ENDLESS = 'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i AS j FROM n'
PROGRAMS = {
    'a view without end': ('DROP TABLE meta', f'CREATE VIEW meta (key, value) AS {ENDLESS}'),
    'a view of another table': ('ALTER TABLE clips RENAME TO c', 'CREATE VIEW clips AS SELECT * FROM c'),
    'a view beside': ('CREATE VIEW more AS SELECT 1', ),
    'a trigger': ('CREATE TRIGGER t AFTER INSERT ON changes BEGIN DELETE FROM files; END', ),
    'a trigger on what every run does': ('CREATE TRIGGER t AFTER DELETE ON changes BEGIN DELETE FROM files; END', ),
    'a virtual table': ('CREATE VIRTUAL TABLE v USING fts5(a)', ),
    'a computed column': ('ALTER TABLE meta ADD COLUMN more AS (hex(value))', ),
    'an index over a function': ('CREATE INDEX e ON files (length(path))', ),
    'a partial index': ('CREATE INDEX e ON files (hash) WHERE size > 0', ),
    'another table': ('CREATE TABLE more (a)', ),
    'a table that is gone': ('DROP TABLE changes', ),
    'a column that is gone': ('ALTER TABLE files DROP COLUMN error', ),
    'a column of another type': ('DROP TABLE changes', 'CREATE TABLE changes (clip TEXT PRIMARY KEY, added)'),
    'a condition': ('DROP TABLE changes',
                    'CREATE TABLE changes (clip INTEGER PRIMARY KEY, added INTEGER NOT NULL CHECK (added > abs(-9)))'),
    'a log of its own': ('PRAGMA journal_mode = wal', ),
}


@pytest.mark.parametrize('what', PROGRAMS)
def test_a_catalogue_that_is_a_program_is_refused(what, tmp_path):
    """By who reads it and by who would write to it, with its name, at once, and as it was."""
    vector = make_index(tmp_path / 'index', tmp_path)[0]
    assert found(tmp_path / 'index', vector)[0] == '0.mp4'
    change(tmp_path / 'index', *PROGRAMS[what])
    before = (tmp_path / 'index' / 'catalogue.db').read_bytes()
    for call in (lambda: SearchIndex(tmp_path / 'index'), lambda: SearchIndex.source(tmp_path / 'index'),
                 lambda: Catalogue(tmp_path / 'index' / 'catalogue.db').allow_writing()):
        with pytest.raises(ValueError, match='catalogue.db is not a catalog of this project'):
            call()
    assert (tmp_path / 'index' / 'catalogue.db').read_bytes() == before


def test_a_call_without_end_is_ended(tmp_path):
    """Tables that are what they should be may still be made to be walked for ever, by pages that lead in circles."""
    schema = {'only': ('CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)', )}
    database = Database(tmp_path / 'a.db', schema, create=True)
    with pytest.raises(ValueError, match='a.db .*a query takes too long'):
        database.rows(f'SELECT count(*) FROM ({ENDLESS})')
    with pytest.raises(ValueError, match='a query takes too long'):
        list(database.parts(f'SELECT i FROM ({ENDLESS}) WHERE i < 0', 10))
    assert database.rows('SELECT 1') == [(1, )]
    database.close()


def varint(number: int) -> bytes:
    """Three bytes, as SQLite writes numbers from 2^14 to 2^21."""
    return bytes((number >> 14 | 0x80, number >> 7 & 0x7f | 0x80, number & 0x7f))


@pytest.mark.parametrize('ask', ['rows', 'parts'])
def test_an_answer_is_no_larger_than_the_file_explains(ask, tmp_path):
    """A value's pages may lead in a circle: 100 rows, 2 MB, would give 100 MB here, and as many as one likes."""
    size, page = 20_000, 16_384
    longer = size + 60 * (page - 4)
    schemas = {'only': ('CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB)', )}
    database = Database(tmp_path / 'a.db', schemas, create=True)
    with database.transaction():
        for _ in range(100):
            database.write('INSERT INTO t (value) VALUES (?)', (b'E' * size, ))
    answers = dict(rows=lambda: database.rows('SELECT value FROM t'),
                   parts=lambda: [row for rows in database.parts('SELECT value FROM t', 100) for row in rows])
    assert answers[ask]() == [(b'E' * size, )] * 100
    content = bytearray((tmp_path / 'a.db').read_bytes())
    for row in range(1, 101):  # bytes of the row, its number, bytes of its head, kinds of its two values
        old, new = (varint(5 + n) + bytes((row, 5, 0)) + varint(12 + 2 * n) for n in (size, longer))
        assert content.count(old) == 1
        content = content.replace(old, new)
    for start in range(0, len(content), page):
        if content[start:start + 100] == bytes(4) + b'E' * 96:
            content[start:start + 4] = (start // page + 1).to_bytes(4, 'big')
    (tmp_path / 'a.db').write_bytes(content)
    database.close()
    database = Database(tmp_path / 'a.db', schemas)
    assert database.rows('SELECT value FROM t LIMIT 3') == [(b'E' * longer, )] * 3
    with pytest.raises(ValueError, match='a.db is .* damaged .more values than fit into the file'):
        answers[ask]()
    database.close()


def test_ctrl_c_in_a_query_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    make_index(tmp_path / 'index', tmp_path)
    catalogue = Catalogue(tmp_path / 'index' / 'catalogue.db')

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Database, '_step', interrupted)
    monkeypatch.setattr('vop_mm.search.database._STEPS_PER_CHECK', 1)
    catalogue._db._db.set_progress_handler(catalogue._db._step, 1)
    with pytest.raises(KeyboardInterrupt):
        catalogue.files()
    with pytest.raises(KeyboardInterrupt):
        with catalogue.transaction():
            catalogue.set('videos', '/')
    catalogue.close()


@pytest.mark.parametrize('writes', [False, True], ids=['reader', 'writer'])
@pytest.mark.parametrize('what', ['wal', 'shm', 'fifo', 'link', 'names a file'])
def test_files_beside_it_are_looked_at_before_sqlite_does(what, writes, tmp_path):
    """A log is read in place of the table, a FIFO waits for ever, and a journal that names a file has it removed."""
    make_index(tmp_path / 'index', tmp_path)
    victim, journal = tmp_path / 'victim', tmp_path / 'index' / 'catalogue.db-journal'
    victim.write_text('no names of journals in it')
    if what in ('wal', 'shm'):
        (tmp_path / 'index' / f'catalogue.db-{what}').write_bytes(b'\0' * 32768)
    elif what == 'fifo':
        os.mkfifo(journal)
    elif what == 'link':
        journal.symlink_to(victim)
    else:
        journal.write_bytes(journal_of(str(victim)))
    with pytest.raises(ValueError, match='catalogue.db-(wal|shm|journal) .*does not belong to an index'):
        catalogue = Catalogue(tmp_path / 'index' / 'catalogue.db')
        if writes:
            catalogue.allow_writing()
    assert victim.read_text() == 'no names of journals in it'


def journal_of(name: str, pages: int = 10) -> bytes:
    """A journal of SQLite that a process left when it was killed, of no page, that names another file."""
    magic, name = bytes.fromhex('d9d505f920a163d7'), name.encode()
    head = magic + b''.join(number.to_bytes(4, 'big') for number in (0, 1, pages, 512, 16384))
    check = sum(byte if byte < 128 else byte - 256 for byte in name) % 2**32
    return (head.ljust(512, b'\0') + (16384 // 16384).to_bytes(4, 'big') + name + len(name).to_bytes(4, 'big')
            + check.to_bytes(4, 'big') + magic)


def test_such_a_journal_does_remove_a_file(tmp_path):
    """Of SQLite itself: the test above would pass for a journal that SQLite doesn't care about."""
    make_index(tmp_path / 'index', tmp_path)
    victim = tmp_path / 'victim'
    victim.write_text('no names of journals in it')
    (tmp_path / 'index' / 'catalogue.db-journal').write_bytes(journal_of(str(victim)))
    change(tmp_path / 'index', 'SELECT count(*) FROM meta')
    assert not victim.exists()


def killed_in_a_change(index):
    """A process changes more than SQLite keeps in memory, and is killed."""
    if os.fork() == 0:
        catalogue = Catalogue(index / 'catalogue.db')
        catalogue.allow_writing()
        catalogue._db._db.execute('PRAGMA cache_size = 5')
        with catalogue.transaction():
            for number in range(300):
                catalogue.put_file(f'new_{number}.mp4', FileState(1, 2, 'x', None),
                                   [(float(i), i + 1.) for i in range(20)], unit(20, seed=number))
            os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    assert (index / 'catalogue.db-journal').stat().st_size


def test_what_a_killed_process_left_is_taken_back_by_who_only_reads(tmp_path):
    vector = make_index(tmp_path / 'index', tmp_path)[0]
    opened = SearchIndex(tmp_path / 'index')  # as a page that runs meanwhile
    killed_in_a_change(tmp_path / 'index')
    assert opened.is_current() and opened.search(vector, 1)[0].path.endswith('0.mp4')
    killed_in_a_change(tmp_path / 'index')
    assert found(tmp_path / 'index', vector, 50)[0] == '0.mp4' and len(found(tmp_path / 'index', vector, 50)) == 12
    opened.close()


def test_where_it_can_not_be_taken_back_one_line_says_so(tmp_path):
    make_index(tmp_path / 'index', tmp_path)
    killed_in_a_change(tmp_path / 'index')
    before = {path: path.read_bytes() for path in (tmp_path / 'index').iterdir()}
    (tmp_path / 'index').chmod(0o500)
    (tmp_path / 'index' / 'catalogue.db').chmod(0o400)
    child = os.fork()
    if child == 0:
        obey_permissions()
        try:
            SearchIndex(tmp_path / 'index')
        except OSError as e:
            os._exit('catalogue.db has an unfinished change' in str(e))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    (tmp_path / 'index').chmod(0o700)
    assert {path: path.read_bytes() for path in (tmp_path / 'index').iterdir()} == before


def test_a_catalogue_is_read_while_another_process_writes(tmp_path):
    """Also in the middle of a change, which isn't one that a killed process left."""
    vectors = make_index(tmp_path / 'index', tmp_path)
    reader, (mine, other) = SearchIndex(tmp_path / 'index'), socket.socketpair()
    child = os.fork()
    if child == 0:
        search_index = SearchIndex(tmp_path / 'index')
        with search_index.locked():
            for first in (100, 200):
                with search_index.catalogue.transaction():
                    for number in range(first, first + 10):
                        state = FileState(1, 2, 'x', None)
                        search_index.catalogue.put_file(f'{number}.mp4', state, [(0., 2.)], unit(1))
                    other.send(b'.')
                    other.recv(1)
            search_index.synchronize()
        os._exit(0)
    for clips in (12, 22):
        mine.recv(1)
        assert (tmp_path / 'index' / 'catalogue.db-journal').exists()
        for search_index in (reader, SearchIndex(tmp_path / 'index')):
            assert search_index.search(vectors[3], 1)[0].path.endswith('3.mp4')
            assert search_index.catalogue.num_clips() == clips
        mine.send(b'.')
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and not reader.is_current()
    assert reader.catalogue.num_clips() == 32
    reader.close()


def test_who_only_reads_changes_nothing_and_needs_no_permission(tmp_path):
    vector = make_index(tmp_path / 'index', tmp_path)[0]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / 'index').iterdir()}
    search_index = SearchIndex(tmp_path / 'index')
    search_index.search(vector)
    search_index.close()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / 'index').iterdir()} == before


def test_nothing_is_written_through_a_link(tmp_path):
    make_index(tmp_path / 'index', tmp_path)
    (tmp_path / 'index' / 'catalogue.db').rename(tmp_path / 'index' / 'real.db')
    (tmp_path / 'index' / 'catalogue.db').symlink_to('real.db')
    before = (tmp_path / 'index' / 'real.db').read_bytes()
    with closing(SearchIndex(tmp_path / 'index')) as search_index:
        with pytest.raises(OSError, match='refusing to write through a link'):
            with search_index.locked():
                pass
    assert (tmp_path / 'index' / 'real.db').read_bytes() == before
    (tmp_path / 'index' / 'real.db').rename(tmp_path / 'elsewhere.db')
    (tmp_path / 'index' / 'catalogue.db').unlink()
    (tmp_path / 'index' / 'catalogue.db').symlink_to(tmp_path / 'elsewhere.db')
    with pytest.raises(ValueError, match='a link that leads out of the index'):
        SearchIndex(tmp_path / 'index')


def test_damaged_files_are_refused_with_their_name_in_every_call(tmp_path):
    """Bytes of a catalogue are changed at random; either all is read as it was, or an error says which file it is."""
    vectors = make_index(tmp_path / 'index', tmp_path, count=60)
    path, rng = tmp_path / 'index' / 'catalogue.db', np.random.default_rng(0)
    whole, outcomes = {name: (tmp_path / 'index' / name).read_bytes() for name in ('catalogue.db', 'vectors.faiss')}, []
    for trial in range(120):
        (tmp_path / 'index' / 'vectors.faiss').write_bytes(whole['vectors.faiss'])
        (tmp_path / 'index' / 'catalogue.db-journal').unlink(missing_ok=True)
        content = bytearray(whole['catalogue.db'])
        for _ in range(int(rng.integers(1, 30))):
            content[rng.integers(len(content))] = rng.integers(256)
        if trial % 5 == 0:
            content = content[:rng.integers(len(content))]
        path.write_bytes(content)
        try:
            with closing(SearchIndex(tmp_path / 'index')) as search_index:
                search_index.search(vectors[trial % 60], 20)
                search_index.catalogue.files()
                search_index.catalogue.clips_of_file('5.mp4')
                sum(len(ids) for ids, _ in search_index.catalogue.vectors())
                with search_index.locked():
                    search_index.repair()
                    search_index.synchronize()
            outcomes.append('read')
        except (ValueError, OSError) as e:
            outcomes.append(str(e))
    refused = [message for message in outcomes if message != 'read']
    assert len(refused) > 40 and outcomes.count('read') > 5, outcomes
    for message in refused:
        assert str(tmp_path / 'index') in message and message.isprintable() and len(message) < 500
