import json

import pytest

from vop_mm.datasets import AnnotationError
from vop_mm.datasets.video_manifest import ManifestEntry, is_manifest, read_manifest


def write(folder, *lines) -> str:
    path = folder / 'videos.jsonl'
    path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def test_entries(tmp_path):
    path = write(tmp_path, '\ufeff{"url": "s3://bucket/a.mp4", "start": 1, "end": 2.5, "size": 10, "etag": "x"}', '',
                 dict(url='https://user:hush@h.org/b.mp4?id=1&sig=hush', start=None), dict(url='sub/c d.mp4', end=3),
                 dict(url=f'file://{tmp_path}/sub/d%20e.mp4', start=4), dict(url='gs://b/f.mp4'))
    entries = read_manifest(path)
    assert entries == [
        ManifestEntry('s3://bucket/a.mp4', 1, 2.5, 10, 'x'),
        ManifestEntry('https://user:hush@h.org/b.mp4?id=1&sig=hush'), ManifestEntry('sub/c d.mp4', None, 3),
        ManifestEntry('sub/d e.mp4', 4), ManifestEntry('gs://b/f.mp4')]
    assert [entry.name for entry in entries] == [
        's3://bucket/a.mp4#t=1,2.5', 'https://h.org/b.mp4?id=1&sig=', 'sub/c d.mp4#t=,3', 'sub/d e.mp4#t=4',
        'gs://b/f.mp4']
    assert entries[0].stat == (10, 'x') and entries[1].stat == (None, None)


@pytest.mark.parametrize('line, message', [
    ('{', 'line 2: not JSON'), ('[' * 60000, 'line 2: not JSON'), ('[1]', 'line 2: not an object'),
    ('{"url": "a", "url": "b"}', 'line 2: not JSON (duplicate key)'),
    ('{}', 'line 2: url must be a text, found None'), (dict(url=''), 'line 2: url must be a text'),
    (dict(url='a.mp4', name='x'), "line 2: unknown key 'name'"),
    (dict(url='a.mp4', start=-1), 'line 2: start must be seconds, found -1'),
    (dict(url='a.mp4', end=True), 'line 2: end must be seconds'), (dict(url='a.mp4', size=1.5), 'line 2: size must be'),
    ('{"url": "a.mp4", "end": NaN}', 'line 2: end must be seconds, found nan'),
    ('{"url": "a.mp4", "start": 1' + '0' * 400 + '}', 'line 2: start must be seconds, found 10'),
    (dict(url='a.mp4', start=2, end=2), 'line 2: end (2) must be greater than start (2)'),
    (dict(url='a.mp4', etag=5), 'line 2: etag must be a text'),
    (dict(url='ok.mp4'), 'line 2: the same clip as in line 1'),
    (dict(url='x' * 70000), 'line 2: more than 65536 bytes'),
    (dict(url='../a.mp4'), 'line 2: ../a.mp4 is outside the folder of the manifest'),
    (dict(url='/etc/passwd'), 'line 2: /etc/passwd is outside'), (dict(url='a\0b'), 'is outside'),
    (dict(url='file:///etc/passwd'), 'line 2: file:///etc/passwd is outside'),
    (dict(url='file://other/a.mp4'), 'a file on another machine'), (dict(url='file:../a.mp4'), 'is outside'),
    (dict(url='ftp://u:hush@h/a.mp4'), 'line 2: ftp://h/a.mp4 is no address of the schemes s3, gs, http, https'),
    (dict(url='simplecache::s3://b/a'), 'no address of the schemes'), (dict(url='s3://'), 'no address'),
    (dict(url='http://h:port/a'), 'no address'), (dict(url='data:,a'), 'neither an address nor a path'),
    (dict(url='zip::a.zip'), 'neither an address nor a path'),
])
def test_errors_name_the_line(tmp_path, line, message):
    path = write(tmp_path, dict(url='ok.mp4'), line)
    with pytest.raises(AnnotationError) as error:
        read_manifest(path)
    text = str(error.value)
    assert text.startswith(f'{path}: ') and message in text
    assert '\n' not in text and 'hush' not in text and len(text) < 400 + len(path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / 'a.jsonl').write_bytes(b'{"url": "\xff"}')
    with pytest.raises(AnnotationError, match='line 1: not JSON'):
        read_manifest(tmp_path / 'a.jsonl')


def test_no_manifest(tmp_path):
    with pytest.raises(AnnotationError, match=r"can't be read \(No such file"):
        read_manifest(tmp_path / 'gone.jsonl')
    with pytest.raises(AnnotationError, match=r"can't be read \(Is a directory"):
        read_manifest(tmp_path)
    with pytest.raises(AnnotationError, match='the manifest is empty'):
        read_manifest(write(tmp_path, '', ''))
    assert is_manifest('a/b.JSONL') and not is_manifest('a.json') and not is_manifest('https://h/a.jsonl')
