"""Which file belongs to which video."""
import os

import pytest

from vop_mm.conversion import ConversionError, VideoFiles


def make(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b'x')


@pytest.mark.parametrize('video_id, path', [
    ('video0', 'video0.mp4'),
    ('video0', 'video0.WEBM'),
    ('video0', 'a/b/video0.mkv'),
    ('12@N06_1.mov', '12@N06_1.mov'),
    ('12@N06_1.mov', '12@N06_1.mp4'),  # compressed
    ('12@N06_1.mov', '12@N06_1.mov.mp4'),
    ('12@N06_1', '12@N06_1.3gp'),
    ('v_abc', 'v_abc.mp4'),
    ('v_abc', 'abc.mkv'),
    ('abc', 'v_abc.mp4'),
    ('v_v_abc', 'v_abc.mp4'),  # an id of YouTube may begin so itself
    # the end of a clip's name looks like an extension
    ('0001_A_00.00.51.926-00.00.54.129', '0001_A/0001_A_00.00.51.926-00.00.54.129.avi'),
    ('señor 電影', 'señor 電影.mp4'),
])
def test_matches(tmp_path, video_id, path):
    others = 'video00.mp4', '0001_A/0001_A_00.00.51.926-00.00.54.130.avi', 'v_abcd.mp4'
    make(tmp_path, path, *others)
    assert VideoFiles(tmp_path, prefix='v_').match([video_id, 'not there']) == {video_id: path}


def test_a_prefix_is_only_put_up_with_where_it_is_named(tmp_path):
    make(tmp_path, 'abc.mp4')
    assert VideoFiles(tmp_path).match(['v_abc']) == {}


def test_the_files_own_name_comes_first(tmp_path):
    make(tmp_path, 'a.mov', 'a.mp4')
    assert VideoFiles(tmp_path).match(['a.mp4', 'a.mov']) == {'a.mp4': 'a.mp4', 'a.mov': 'a.mov'}


def test_what_is_no_video_is_kept_apart(tmp_path):
    make(tmp_path / 'disk', 'a.mp4', '.b.mp4', 'c.json', '@eaDir/a.mp4/preview.mp4', 'sub/f.AVI')
    make(tmp_path / 'other', 'g.ts')
    (tmp_path / 'disk' / 'more').symlink_to(tmp_path / 'other')
    files = VideoFiles(tmp_path / 'disk')
    assert files.paths == ['a.mp4', 'more/g.ts', 'sub/f.AVI']
    assert files.left_out == {'hidden': ['.b.mp4'], 'system files': ['@eaDir'],
                              'without a video extension': ['c.json']}


COMPOSED, DECOMPOSED = 'caf\u00e9', 'cafe\u0301'


@pytest.mark.parametrize('there, wanted', [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
@pytest.mark.parametrize('extension', ['', '.mp4'])
def test_accents_match_however_they_are_stored(tmp_path, there, wanted, extension):
    make(tmp_path, f'sub/{there}.mp4', f'{there}s.mp4', 'cafe.mp4')
    assert VideoFiles(tmp_path).match([wanted + extension]) == {wanted + extension: f'sub/{there}.mp4'}
    make(tmp_path, f'v_{there}2.mp4')
    assert VideoFiles(tmp_path, prefix='v_').match([f'{wanted}2']) == {f'{wanted}2': f'v_{there}2.mp4'}


def test_accents_as_they_are_come_first(tmp_path):
    make(tmp_path, f'{COMPOSED}.mp4', f'{DECOMPOSED}.mp4')
    assert VideoFiles(tmp_path).match([COMPOSED, DECOMPOSED]) == {
        COMPOSED: f'{COMPOSED}.mp4', DECOMPOSED: f'{DECOMPOSED}.mp4'}


def test_two_ids_in_two_forms_have_no_file_in_common(tmp_path):
    make(tmp_path, f'{COMPOSED}.mp4')
    with pytest.raises(ConversionError, match='could be .* or '):
        VideoFiles(tmp_path).match([COMPOSED, DECOMPOSED])


def test_a_gif_is_a_video_where_there_is_no_other(tmp_path):
    make(tmp_path, 'a.mp4', 'a.gif', 'b.gif')
    assert VideoFiles(tmp_path).match(['a', 'b', 'a.gif']) == {'a': 'a.mp4', 'b': 'b.gif', 'a.gif': 'a.gif'}


@pytest.mark.parametrize('name', [b'\xc4\xe3', b'-i', b'a:b', b'a\nb', b'x' * 251])
def test_names_of_any_bytes_match(tmp_path, name):
    video_id = os.fsdecode(name)
    make(tmp_path, f'{video_id}.mp4')
    assert VideoFiles(tmp_path).match([video_id]) == {video_id: f'{video_id}.mp4'}


def test_what_is_ambiguous_is_refused(tmp_path):
    make(tmp_path, 'raw/a.avi', 'small/a.mp4', 'b.mp4')
    with pytest.raises(ConversionError, match='several files could be a: raw/a.avi, small/a.mp4'):
        VideoFiles(tmp_path).match(['b', 'a'])
    with pytest.raises(ConversionError, match='b.mp4 could be b.mov or b.avi'):
        VideoFiles(tmp_path).match(['b.mov', 'b.avi'])


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder'):
        VideoFiles(tmp_path / 'no')
