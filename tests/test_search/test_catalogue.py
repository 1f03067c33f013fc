"""What a catalogue is asked about single files and clips."""
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from vop_mm.search.catalogue import Catalogue, Clip, FileState

_VECTORS = np.eye(2, dtype=np.float32)


@pytest.fixture
def catalogue(tmp_path):
    catalogue = Catalogue(tmp_path / 'catalogue.db', create=True)
    with catalogue.transaction():
        catalogue.put_file('a.mp4', FileState(10, 20, 'x', None), [(0., 4.), (0.1 + 0.2, 5.)], _VECTORS)
        catalogue.put_file('b\udcff.mp4', FileState(11, 21, 'y', None), [(0., 4.)], _VECTORS[:1])
        catalogue.put_file('bad.mp4', FileState(12, 22, 'z', 'not a video'))
    yield catalogue
    catalogue.close()


def test_a_clip_is_found_by_its_file_and_start(catalogue):
    number = catalogue.number('a.mp4', 0.1 + 0.2)
    assert catalogue.clips([number]) == {number: Clip('a.mp4', 0.1 + 0.2, 5.)}
    other = catalogue.number('b\udcff.mp4', 0.)
    assert catalogue.clips([other])[other].path == 'b\udcff.mp4'
    assert catalogue.number('a.mp4', 1.) is None and catalogue.number('bad.mp4', 0.) is None


def test_a_clips_number_is_never_given_again(catalogue):
    before = [catalogue.number('a.mp4', 0.), catalogue.number('b\udcff.mp4', 0.)]
    with catalogue.transaction():
        catalogue.remove_file('b\udcff.mp4')
        catalogue.put_file('a.mp4', FileState(10, 20, 'x', None), [(0., 4.)], _VECTORS[:1])
    assert catalogue.number('a.mp4', 0.) not in before and not catalogue.clips(before)


def test_a_file_is_as_it_was_indexed(catalogue):
    assert catalogue.file('a.mp4') == FileState(10, 20, 'x', None)
    assert catalogue.file('bad.mp4').error == 'not a video'
    assert catalogue.file('nothing.mp4') is None


WRONG_VALUES = {
    'a path that climbs': "UPDATE files SET path = CAST('../../etc/passwd' AS BLOB), checksum = NULL",
    'a path that climbs later': "UPDATE files SET path = CAST('a/../../b.mp4' AS BLOB), checksum = NULL",
    'an absolute path': "UPDATE files SET path = CAST('/etc/passwd' AS BLOB), checksum = NULL",
    'an empty path': "UPDATE files SET path = x'', checksum = NULL",
    'a path with a NUL': "UPDATE files SET path = x'6100', checksum = NULL",
    'a text for a path': "UPDATE files SET path = 'a.mp4', checksum = NULL",
    'a number for a path': 'UPDATE files SET path = 7, checksum = NULL',
    'a text for a size': "UPDATE files SET size = 'a<script>', checksum = NULL",
    'a negative size': 'UPDATE files SET size = -1, checksum = NULL',
    'a blob for a time': "UPDATE files SET mtime_ns = x'00', checksum = NULL",
    'a number for a hash': "UPDATE files SET hash = x'07', checksum = NULL",
    'a blob for a reason': "UPDATE files SET error = x'07', checksum = NULL",
    'a text that is none': "UPDATE files SET error = CAST(x'ff' AS TEXT), checksum = NULL",
    'wrong checksum of a file': 'UPDATE files SET checksum = checksum + 1',
    'a text for a checksum': "UPDATE files SET checksum = 'a'",
    'a flipped hash': "UPDATE files SET hash = 'w'",
    'a text for a start': "UPDATE clips SET start = 'a<script>', checksum = NULL",
    'a start that is infinite': 'UPDATE clips SET start = 1e999, stop = 1e999, checksum = NULL',
    'a negative start': 'UPDATE clips SET start = -1, checksum = NULL',
    'an end before the start': 'UPDATE clips SET start = 5, stop = 4, checksum = NULL',
    'a blob for an end': "UPDATE clips SET stop = x'00', checksum = NULL",
    'a short vector': "UPDATE clips SET vector = x'0000803f', checksum = NULL",
    'a long vector': 'UPDATE clips SET vector = zeroblob(100000), checksum = NULL',
    'a text for a vector': "UPDATE clips SET vector = 'abcdefgh', checksum = NULL",
    'a vector that is not finite': "UPDATE clips SET vector = x'0000c07f00000000', checksum = NULL",
    'a vector of another norm': "UPDATE clips SET vector = x'ffff7f7fffff7f7f', checksum = NULL",
    'a number that no clip has': 'UPDATE clips SET id = -id; INSERT INTO changes SELECT id, 1 FROM clips',
    'a text for a file': "PRAGMA foreign_keys = OFF; UPDATE clips SET file = 'a' WHERE file = 1",
    'a flipped bit of a vector': "UPDATE clips SET vector = x'0000803f00000001'",
    'a moment of another time': 'UPDATE clips SET start = 0.5',
    'a clip of another file': 'UPDATE clips SET file = 2 WHERE file = 1',
}


@pytest.mark.parametrize('what', WRONG_VALUES)
def test_a_value_that_can_not_be_is_refused_with_the_name_of_the_file(what, catalogue, tmp_path):
    with catalogue.transaction():
        catalogue.set('settings', dict(dim=2))
    catalogue.close()
    with closing(sqlite3.connect(tmp_path / 'catalogue.db')) as db:
        db.execute("DELETE FROM files WHERE path = CAST('bad.mp4' AS BLOB)")
        if 'path' in WRONG_VALUES[what]:
            db.execute('DELETE FROM files WHERE id = 2')
        db.commit()
        db.executescript(WRONG_VALUES[what])
    with closing(Catalogue(tmp_path / 'catalogue.db')) as changed:
        with pytest.raises(ValueError, match='catalogue.db is not a catalog of this project, or is') as raised:
            changed.files()
            list(changed.vectors())
        assert str(raised.value).isprintable() and '<script>' not in str(raised.value)
        with pytest.raises(ValueError, match='catalogue.db'):
            changed.clips([1, 2, 3])
            changed.files()
            list(changed.added())


@pytest.mark.parametrize('key, text', [
    ('settings', '{}'), ('settings', '[]'), ('settings', 'null'), ('settings', '{"dim": true}'),
    ('settings', '{"dim": 0}'), ('settings', '{"dim": 16385}'), ('settings', '{"dim": 1e400}'),
    ('settings', '{"dim": "2"}'), ('settings', '{"dim": 1' + '0' * 400 + '}'), ('settings', '{"dim": 2.0}'),
    ('settings', '{"dim": 2, "window": NaN}'), ('settings', '{"dim": 2, "window": -1}'),
    ('settings', '{"dim": 2, "stride": 0}'), ('settings', '{"dim": 2, "window": "2"}'),
    ('settings', '{"dim": 2, "prompts": 7}'), ('settings', '{"dim": 2, "more": {}}'),
    ('settings', '[' * 100_000), ('settings', '{"dim": 2'), ('settings', ''), ('settings', '9' * 10_000),
    ('videos', '7'), ('videos', '"relative"'), ('videos', '"/a\\u0000b"'), ('videos', 'null'),
    ('videos', '"/' + 'a' * 5000 + '"'),
    ('backend', '7'), ('backend', '"FaissIndex"'), ('backend', '{}'), ('backend', '{"type": 7}'),
    ('backend', '{"type": "FaissIndex", "more": {"type": "os.system"}}'),
    ('source', '[]'), ('source', '{"config": 7}'), ('source', '{"checkpoint": ["a"]}'),
    ('source', '{"checkpoint": "a\\u0000"}'),
    ('generation', '"1"'), ('generation', '-1'), ('generation', 'true'), ('generation', '1e999'),
    ('finished', '1'), ('finished', '"yes"')])
def test_what_an_index_says_of_itself_is_checked(catalogue, tmp_path, key, text):
    with catalogue.transaction():
        catalogue.set(key, None)
    catalogue.close()
    with closing(sqlite3.connect(tmp_path / 'catalogue.db')) as db:
        db.execute('UPDATE meta SET value = ? WHERE key = ?', (text, key))
        db.commit()
    with closing(Catalogue(tmp_path / 'catalogue.db')) as changed:
        with pytest.raises(ValueError, match=f'catalogue.db is not .* damaged .{key} (is not|has an invalid)'):
            changed.get(key)


def test_a_reason_of_somebody_elses_does_not_fill_the_screen(catalogue):
    with catalogue.transaction():
        catalogue.put_file('long.mp4', FileState(None, None, None, 'no' * 1_000_000))
    assert catalogue.files()['long.mp4'].error == catalogue.file('long.mp4').error == 'no' * 500


def test_a_catalogue_from_before_there_were_checksums_is_read_and_brought_up_to_date(tmp_path):
    """By whoever writes to it; whoever reads leaves it as it is."""
    with closing(sqlite3.connect(tmp_path / 'catalogue.db')) as db:
        db.executescript(OLD)
        db.execute("INSERT INTO files VALUES (1, CAST('a.mp4' AS BLOB), 10, 20, 'x', NULL)")
        db.execute('INSERT INTO clips VALUES (1, 1, 0, 4, ?)', (_VECTORS[0].tobytes(), ))
        db.execute('INSERT INTO changes VALUES (1, 1)')
        db.commit()
    before = (tmp_path / 'catalogue.db').read_bytes()
    with closing(Catalogue(tmp_path / 'catalogue.db')) as old, closing(Catalogue(tmp_path / 'catalogue.db')) as reader:
        for catalogue in (old, reader):
            assert catalogue.files() == {'a.mp4': FileState(10, 20, 'x', None)}
            assert catalogue.clips([1]) == {1: Clip('a.mp4', 0., 4.)} and len(list(catalogue.added())) == 1
        assert (tmp_path / 'catalogue.db').read_bytes() == before
        with old.transaction():
            old.put_file('b.mp4', FileState(10, 20, 'y', None), [(1., 2.)], _VECTORS[1:])
        assert list(old.files()) == list(reader.files()) == ['a.mp4', 'b.mp4']
        number = old.number('b.mp4', 1.)
        assert old.clips([1, number]) == reader.clips([1, number])
    with closing(sqlite3.connect(tmp_path / 'catalogue.db')) as db:
        assert [row[0] is None for row in db.execute('SELECT checksum FROM clips ORDER BY id')] == [True, False]
        db.execute('UPDATE clips SET vector = ? WHERE id = ?', (_VECTORS[0].tobytes()[::-1], number))
        db.commit()
    with closing(Catalogue(tmp_path / 'catalogue.db')) as new:
        assert len(new.clips([1])) == 1
        with pytest.raises(ValueError, match=f'wrong checksum of clip {number}'):
            new.clips([1, number])


OLD = """PRAGMA page_size = 16384;
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER, mtime_ns INTEGER, hash TEXT,
                    error TEXT);
CREATE INDEX files_by_hash ON files (hash);
CREATE TABLE clips (id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL REFERENCES files, start REAL NOT NULL,
                    stop REAL NOT NULL, vector BLOB NOT NULL);
CREATE INDEX clips_by_file ON clips (file);
CREATE TABLE changes (clip INTEGER PRIMARY KEY, added INTEGER NOT NULL);
COMMIT;
"""


def test_checksums_do_not_change_with_the_machine_or_the_version_of_python(catalogue, tmp_path):
    """They are kept for years: these numbers are not to change."""
    with closing(sqlite3.connect(tmp_path / 'catalogue.db')) as db:
        sums = db.execute('SELECT checksum FROM files ORDER BY id').fetchall()
        assert sums == [(1530318395, ), (3391543225, ), (4183660020, )]
        sums = db.execute('SELECT checksum FROM clips ORDER BY id').fetchall()
        assert sums == [(2140143617, ), (4070205032, ), (2140143618, )]


@pytest.mark.parametrize('vectors', [np.full((1, 2), np.nan), [[np.inf, 0]], [[3, 4]], [[0, 0]], [[1, 0, 0]]],
                         ids=['nan', 'inf', 'long', 'zero', 'of another length'])
def test_vectors_that_nothing_would_find_are_not_kept(catalogue, vectors):
    with catalogue.transaction():
        catalogue.set('settings', dict(dim=2))
    before = catalogue.files()
    with pytest.raises(ValueError, match='embedding|vectors of 2 values'):
        with catalogue.transaction():
            catalogue.put_file('a.mp4', FileState(1, 2, 'x', None), [(0., 1.)], np.asarray(vectors, np.float32))
    assert catalogue.files() == before and len(catalogue.clips_of_file('a.mp4')[0]) == 2
