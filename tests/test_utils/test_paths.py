"""Paths that come with data stay in their folder."""
import os

import pytest

from vop_mm.utils import tensor_files
from vop_mm.utils.paths import open_below, open_regular, path_below


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'videos'
    (folder / 'sub').mkdir(parents=True)
    (folder / 'sub' / 'a').write_text('a')
    (tmp_path / 'secret').write_text('secret')
    return folder


@pytest.mark.parametrize('name', ['', '/etc/passwd', '../secret', 'sub/../../secret', 'sub/..', '..', 'a\0b'])
def test_a_path_that_leads_out_is_refused(folder, name):
    with pytest.raises(ValueError, match='leads out of the folder'):
        path_below(folder, name)
    with pytest.raises(ValueError, match='leads out of the folder'):
        open_below(folder, name)


@pytest.mark.parametrize('name', ['sub/a', './sub/a', 'sub//a', 'sub/./a'])
def test_a_path_that_stays_inside_is_opened(folder, name):
    with open_below(folder, name) as file:
        assert file.read() == b'a'


def test_names_that_only_look_like_climbing(folder):
    (folder / '..a').write_text('b')
    with open_below(folder, '..a') as file:
        assert file.read() == b'b'


def test_a_link_may_lead_elsewhere_in_the_folder_but_not_out(folder):
    (folder / 'inside').symlink_to(folder / 'sub' / 'a')
    (folder / 'outside').symlink_to(folder.parent / 'secret')
    (folder / 'up').symlink_to(folder.parent)
    with open_below(folder, 'inside') as file:
        assert file.read() == b'a'
    for name in ('outside', 'up/secret'):
        with pytest.raises(ValueError, match='is a link that leads out'):
            open_below(folder, name)
        with open_below(folder, name, follow_links=True) as file:
            assert file.read() == b'secret'


def test_links_where_the_system_does_not_tell_the_place_of_an_open_file(folder, monkeypatch):
    """macOS, say."""
    (folder / 'inside').symlink_to(folder / 'sub' / 'a')
    (folder / 'outside').symlink_to(folder.parent / 'secret')
    isdir = os.path.isdir
    monkeypatch.setattr(os.path, 'isdir', lambda path: not str(path).startswith('/proc') and isdir(path))
    with open_below(folder, 'inside') as file:
        assert file.read() == b'a' and tensor_files._reopened(file) == str(folder / 'inside')
    with pytest.raises(ValueError, match='is a link that leads out'):
        open_below(folder, 'outside')


def test_a_folder_with_the_same_beginning_is_another_one(folder):
    (folder.parent / 'videos2').mkdir()
    (folder.parent / 'videos2' / 'a').write_text('a')
    (folder / 'link').symlink_to(folder.parent / 'videos2' / 'a')
    with pytest.raises(ValueError, match='leads out'):
        open_below(folder, 'link')


def test_the_folder_itself_may_be_a_link(folder):
    (folder.parent / 'link').symlink_to(folder)
    with open_below(folder.parent / 'link', 'sub/a') as file:
        assert file.read() == b'a'


def test_only_regular_files_are_opened(folder):
    os.mkfifo(folder / 'fifo')
    (folder / 'null').symlink_to('/dev/null')
    for name in ('fifo', 'null'):
        with pytest.raises(OSError, match='not a regular file'):
            open_regular(folder / name)
    with pytest.raises(IsADirectoryError):
        open_regular(folder)
