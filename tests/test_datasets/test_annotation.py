import gzip
import json
import os

import pytest

from vop_mm.datasets import AnnotationError, read_annotation
from vop_mm.datasets.annotation import locate_video


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')
    return str(path)


def entry(**changes) -> dict:
    return dict(dict(video_id='a', video='a.mp4', captions=['x']), **changes)


def test_own_form_keeps_order_and_extra_keys(tmp_path):
    entries = [entry(video_id='b', kind='event', twin='a', start=1.5, end=3), entry(captions=['x', 'ÿ'])]
    path = write(tmp_path / 'a.json', dict(metainfo=dict(dataset='demo', split='dev'), data_list=entries))
    assert read_annotation(path) == (dict(dataset='demo', split='dev'), entries)


def test_form_of_mmaction2(tmp_path):
    path = write(tmp_path / 'a.json', {'sub/v1.mp4': ['one', 'two'], 'v2.avi': ['three']})
    assert read_annotation(path) == ({}, [
        dict(video_id='sub/v1', video='sub/v1.mp4', captions=['one', 'two']),
        dict(video_id='v2', video='v2.avi', captions=['three'])])


@pytest.mark.parametrize('content, says', [
    ('{"data_list": [', 'not a JSON file'),
    ('', 'not a JSON file'),
    ([entry()], 'object at the top, found a list'),
    ('3', 'found a number'),
    (dict(metainfo={}, data_list={}), 'data_list must be a list, found a object'),
    (dict(metainfo=[], data_list=[entry()]), 'metainfo must be an object'),
    (dict(videos=[], sentences='x'), 'neither'),
    (dict(metainfo={}, data_list=[]), 'the dataset is empty'),
    ({}, 'the dataset is empty'),
    (dict(data_list=['a.mp4']), 'entry 0 must be an object, found a text'),
    (dict(data_list=[entry(), entry(video_id=7)]), 'entry 1: video_id must be a non-empty string, found 7'),
    (dict(data_list=[dict(video_id='a', captions=['x'])]), 'entry 0: video must be a non-empty string, found no'),
    (dict(data_list=[entry(), entry(video='b.mp4')]), 'entry 1 (a): duplicate video_id'),
    ({'a.mp4': ['x'], 'a.avi': ['y']}, 'entry 1 (a): duplicate video_id'),
    ('{"a.mp4": ["x"], "a.mp4": ["y"]}', "duplicate key 'a.mp4'"),
    (dict(data_list=[entry(captions=[])]), 'entry 0 (a): captions must be a non-empty list'),
    (dict(data_list=[entry(captions='x')]), "captions must be a non-empty list, found 'x'"),
    (dict(data_list=[entry(captions=['x', ' '])]), "a caption must be a non-empty string, found ' '"),
    (dict(data_list=[entry(captions=[None])]), 'a caption must be a non-empty string, found None'),
    (dict(data_list=[entry(start=-1)]), 'start must be a number of seconds, at least 0, found -1'),
    (dict(data_list=[entry(end='3')]), "end must be a number of seconds, at least 0, found '3'"),
    ('{"data_list": [{"video_id": "a", "video": "a", "captions": ["x"], "end": NaN}]}', 'found nan'),
    (dict(data_list=[entry(start=3, end=3)]), 'end (3) must be greater than start (3)'),
    (dict(data_list=[entry(video_index=3)]), "the key 'video_index' is reserved"),
])
def test_what_is_wrong_is_said_in_one_line(tmp_path, content, says):
    path = write(tmp_path / 'bad.json', content)
    with pytest.raises(AnnotationError) as error:
        read_annotation(path)
    message = str(error.value)
    assert message.startswith(f'{path}: ') and says in message and '\n' not in message


DIGITS = '1' + '0' * 400


@pytest.mark.parametrize('entry, says', [
    (f'"start": {DIGITS}', 'start must be a number of seconds, at least 0, found 1000'),
    (f'"end": {DIGITS}', 'end must be a number of seconds, at least 0, found 1000'),
    (f'"end": -{DIGITS}', 'end must be a number of seconds, at least 0, found -1000'),
    ('"end": 1' + '0' * 5000, 'not a JSON file (Exceeds the limit'),
    ('"end": 1e400', 'end must be a number of seconds, at least 0, found inf'),
    ('"start": Infinity', 'found inf'), ('"start": true', 'start must be a number of seconds, at least 0, found True'),
    ('"start": [1]', 'found [1]'), ('"end": {}', 'found {}'),
    (f'"video_id": {DIGITS}', 'video_id must be a non-empty string, found 1000'),
    ('"video_id": ' + '[' * 900 + ']' * 900, 'video_id must be a non-empty string, found [[['),
    ('"note": ' + '[' * 100_000 + ']' * 100_000, 'not a JSON file (maximum recursion'),
    ('"captions": [' + '[' * 900 + ']' * 900 + ']', 'a caption must be a non-empty string, found [[['),
    (f'"captions": [{DIGITS}]', 'a caption must be a non-empty string, found 1000'),
    ('"captions": ["x"], "video_id": "' + 'a' * 9999 + '", "end": -1', 'end must be a number of seconds'),
    ('"video_id": "a\\nb\\u0000\\ud83d", "end": -1', 'entry 0 (a\\nb\\x00\\ud83d): end must be'),
    ('"' + 'k' * 9999 + '": 1, "' + 'k' * 9999 + '": 2', 'duplicate key')])
def test_numbers_lists_and_texts_of_any_size(tmp_path, entry, says):
    keys = dict(video_id='"video_id": "a"', video='"video": "a.mp4"', captions='"captions": ["x"]')
    keys = [text for key, text in keys.items() if f'"{key}"' not in entry]
    path = write(tmp_path / 'bad.json', '{"data_list": [{' + ', '.join([*keys, entry]) + '}]}')
    with pytest.raises(AnnotationError) as error:
        read_annotation(path)
    message = str(error.value)
    assert message.startswith(f'{path}: ') and says in message and message.isprintable() and len(message) < 400


def test_very_large_and_odd_values_that_mean_nothing_are_kept(tmp_path):
    entries = [entry(start=0, end=1e300, views=10**400, captions=['\ud83d x']),
               entry(video_id='\udcff', video='\udcff')]
    assert read_annotation(write(tmp_path / 'a.json', dict(data_list=entries))) == ({}, entries)


@pytest.mark.parametrize('video', ['/etc/passwd', '../a.mp4', 'a/../../b.mp4', '..', 'a\0.mp4', '/', '//a.mp4'])
def test_paths_stay_below_the_folder(tmp_path, video):
    with pytest.raises(AnnotationError) as error:
        locate_video('a.json', 3, entry(video=video), 'data/videos')
    assert str(error.value) == (f'a.json: entry 3 (a): the path {video!r} is outside the video folder '
                                'data/videos')
    assert locate_video('a.json', 3, entry(video=video), '') == video  # no folder was named


def test_paths_below_the_folder(tmp_path):
    for video in ('a.mp4', 'b/c d.mp4', '.hidden/..a.mp4', 'http:/a.mp4', 'a\\..\\b.mp4'):
        assert locate_video('a.json', 0, entry(video=video), 'v') == f'v/{video}'


def test_a_fifo_is_no_annotation(tmp_path):
    os.mkfifo(tmp_path / 'a.json')
    with pytest.raises(AnnotationError, match='no such annotation file'):
        read_annotation(str(tmp_path / 'a.json'))


def test_missing_and_undecodable_files(tmp_path):
    with pytest.raises(AnnotationError, match='gone.json: no such annotation file'):
        read_annotation(str(tmp_path / 'gone.json'))
    (tmp_path / 'binary.json').write_bytes(b'\x89PNG\xff\xfe')
    with pytest.raises(AnnotationError, match='binary.json: not a JSON file'):
        read_annotation(str(tmp_path / 'binary.json'))
    (tmp_path / 'a.json').write_bytes(gzip.compress(b'{"a.mp4": ["x"]}'))
    with pytest.raises(AnnotationError, match='a.json: not a JSON file .compressed with gzip; unpack it first'):
        read_annotation(str(tmp_path / 'a.json'))
    (tmp_path / 'a.json').write_text(f'{json.dumps(entry())}\n{json.dumps(entry(video_id="b"))}\n')
    with pytest.raises(AnnotationError, match='a.json: not a JSON file .line 2 begins a second value: JSON Lines'):
        read_annotation(str(tmp_path / 'a.json'))
