"""Reading files as they come: marks, line ends, blanks; what is wrong is said in one line."""
import gzip

import pytest

from vop_mm.conversion import ConversionError, Source, captions_of, field, paragraph


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path)


def put(source, content, name='f'):
    source.path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize('content', ['a\nb\n', 'a\r\nb', '\ufeffa\n\n  b  \n \n', 'a\rb\r'])
def test_lists(source, content):
    put(source, content)
    assert source.ids('f') == ['a', 'b']
    assert source.files_read == {source.path('f').resolve()}


def test_lines_keep_what_only_looks_like_a_line_end(source):
    put(source, 'x\t1\ta\u2028b\x0bc\x85d\r\n')
    assert source.tsv('f', 3) == [['x', '1', 'a\u2028b\x0bc\x85d']]


@pytest.mark.parametrize('content', ['id,text\n1,"a, ""b"""\n2, c \n', '\ufefftext,x,id\r\n"a, ""b""",,1\r\n\r\nc,,2'])
def test_csv(source, content):
    put(source, content)
    rows = source.csv('f', 'id', 'text')
    assert [(row['id'], row['text']) for row in rows] == [('1', 'a, "b"'), ('2', 'c')]


def test_tsv_knows_no_quotes(source):
    put(source, 'a\t "x\r\nb\ty"\n')
    assert source.tsv('f', 2) == [['a', '"x'], ['b', 'y"']]


@pytest.mark.parametrize('read, content, says', [
    ('ids', 'a\nb\na\n', 'f: duplicate id a, in lines 1 and 3'),
    ('ids', '\n \n', 'f: the file is empty'),
    ('ids', 'a\nb\xe9\n'.encode('latin-1'), 'f: line 2 is not UTF-8 (byte 0xe9)'),
    ('ids', 'a\n'.encode('utf-16'), 'f: line 1 is not UTF-8'),
    ('csv', 'id,texts\n1,a\n', "f: no column 'text' in the first line, found 'id, texts'"),
    ('csv', '', "f: no column 'id'"),
    ('csv', 'id,text\n', 'f: the file is empty'),
    ('csv', 'id,text\n1,a\n2,b,c\n', 'f, line 3: 3 columns, the first line has 2'),
    ('csv', 'id,text\n1,a\n\n1,b\n', 'f: duplicate id 1, in lines 2 and 4'),
    ('csv', 'id,text\n,a\n', 'f, line 2: the id is empty'),
    ('csv', 'id,text\n1,"a\n', 'f, line 2: unexpected end of data'),
    ('tsv', 'a\tb\nc d\n', 'f, line 2: expected 2 columns separated by tabs, the first not empty, found 1'),
    ('tsv', '\tb\n', 'f, line 1: expected 2 columns'),
    ('tsv', '', 'f: the file is empty'),
    ('json', '{"a": [', 'f: not a JSON file'),
    ('json', '', 'f: not a JSON file'),
    ('json', '[' * 100_000, 'f: not a JSON file'),
    ('json', '[1]', 'f: expected an object that is not empty at the top, found [1]'),
    ('json', '{}', 'f: expected an object that is not empty'),
    ('json', '{"a": {"b": 1, "b": 2}}', "f: not a JSON file (duplicate key 'b')"),
    ('json', '{"a": 1}\n{"a": 2}\n', 'f: not a JSON file (line 2 begins a second value: JSON Lines are not read; '),
    ('json', '{"a": 1} {"a": 2}', 'f: not a JSON file (Extra data'),
    ('json', gzip.compress(b'{"a": 1}', mtime=0), 'f: compressed with gzip; unpack it first'),
    ('csv', gzip.compress(b'id,text', mtime=0), 'f: compressed with gzip'),
    ('json', None, 'lacks f'),
])
def test_what_is_wrong_is_said(source, read, content, says):
    if content is not None:
        put(source, content)
    arguments = dict(ids=(), csv=('id', 'text'), tsv=(2,), json=(dict,))[read]
    with pytest.raises(ConversionError) as e:
        getattr(source, read)('f', *arguments)
    assert says in str(e.value) and '\n' not in str(e.value) and len(str(e.value)) < 500


def test_finding_one_of_several_names(source):
    for name in ('b_captions.json', 'b.csv'):
        put(source, 'x', name)
    assert source.find('a.json', '*captions*.json') == 'b_captions.json' and source.find('c') is None
    put(source, 'x', 'c_captions.json')
    with pytest.raises(ConversionError, match='holds b_captions.json, c_captions.json'):
        source.find('*captions*.json')
    with pytest.raises(ConversionError, match='lacks a or c'):
        source.require('a', 'c')


def test_fields_and_paragraphs():
    assert field('f', dict(a=' x '), 'a', str) == 'x'
    for record, says in [({}, 'a must be a text that is not empty, found none'), (dict(a=' '), 'found ""'),
                         (dict(a=[1]), r'found \[1\]'), ([], r'expected an object with a, found \[\]')]:
        with pytest.raises(ConversionError, match=f'f: .*{says}'):
            field('f', record, 'a', str)
    assert paragraph('f', ['A  dog. ', '', '\tIt\nbarks.']) == 'A dog. It barks.'
    for sentences, says in [([], 'no sentences'), ([' '], 'no sentences'), (['a', None], 'a sentence must be a text')]:
        with pytest.raises(ConversionError, match=f'f: {says}'):
            paragraph('f', sentences)


def test_captions_of_listed_videos():
    captions = dict(a=['x'], b=['y'], c=[])
    assert list(captions_of(['b', 'a'], captions, 'f', 'list')) == ['b', 'a']
    with pytest.raises(ConversionError, match='f has no captions of 2 videos that list names: d, e'):
        captions_of(['a', 'd', 'e'], captions, 'f', 'list')
    with pytest.raises(ConversionError, match='f: c must be a list that is not empty'):
        captions_of(['c'], captions, 'f', 'list')
