"""Which file belongs to which video."""
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


def test_what_counts_as_a_video(tmp_path):
    make(tmp_path / 'disk', 'a.mp4', '.b.mp4.x.tmp', '.b.mp4', 'c.json', 'd', 'e.mp4.part', 'sub/f.AVI')
    (tmp_path / 'disk' / 'link').symlink_to(tmp_path / 'disk', target_is_directory=True)  # back to itself
    make(tmp_path / 'other', 'g.ts')
    (tmp_path / 'disk' / 'more').symlink_to(tmp_path / 'other', target_is_directory=True)
    (tmp_path / 'disk' / 'h.mp4').symlink_to(tmp_path / 'other' / 'g.ts')
    assert VideoFiles(tmp_path / 'disk').paths == ['a.mp4', 'h.mp4', 'more/g.ts', 'sub/f.AVI']


def test_what_is_ambiguous_is_refused(tmp_path):
    make(tmp_path, 'raw/a.avi', 'small/a.mp4', 'b.mp4')
    with pytest.raises(ConversionError, match='several files could be a: raw/a.avi, small/a.mp4'):
        VideoFiles(tmp_path).match(['b', 'a'])
    with pytest.raises(ConversionError, match='b.mp4 could be b.mov or b.avi'):
        VideoFiles(tmp_path).match(['b.mov', 'b.avi'])


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder'):
        VideoFiles(tmp_path / 'no')
