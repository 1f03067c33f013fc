"""Which files the page serves."""
import os
import shutil

import pytest

from vop_mm.search.catalogue import FileState
from vop_mm.search.page.served import open_served, path_by_handle
from vop_mm.search.stills import middle_frame


def link(path, target):
    path.symlink_to(target)
    return path.name


@pytest.mark.parametrize('claims', [
    lambda root: ('../secret.mp4', root / 'secret.mp4'),
    lambda root: ('a/../../secret.mp4', root / 'secret.mp4'),
    lambda root: (str(root / 'secret.mp4'), root / 'secret.mp4'),
    lambda root: (link(root / 'videos' / 'link.mp4', '../secret.mp4'), root / 'secret.mp4'),
    lambda root: (link(root / 'videos' / 'out', root) + '/secret.mp4', root / 'secret.mp4'),
    lambda root: ('../../../../../../../../etc/passwd', '/etc/passwd'),
    lambda root: ('passwd', '/etc/passwd', '/etc'),
    lambda root: ('etc/passwd', '/etc/passwd', '/'),
    lambda root: (link(root / 'videos' / 'passwd.mp4', '/etc/passwd'), '/etc/passwd'),
    lambda root: ('text.mp4', root / 'text.mp4', root),
    lambda root: ('hls.mp4', root / 'hls.mp4', root),
    lambda root: ('folder.mp4', root / 'folder.mp4', root),
    lambda root: ('fifo.mp4', root / 'fifo.mp4', root),
    lambda root: ('gone\0.mp4', root / 'secret.mp4', root),
    lambda root: ('', root / 'secret.mp4', root),
], ids=['above', 'around', 'absolute', 'link', 'folder-link', 'passwd', 'root-etc', 'root', 'link-to-passwd', 'text',
        'playlist', 'folder', 'fifo', 'nul', 'empty'])
@pytest.mark.parametrize('follow_links', [False, True])
def test_an_index_can_not_name_other_files_than_its_videos(folder, tmp_path, claims, follow_links):
    root = tmp_path
    shutil.copytree(folder / 'videos', root / 'videos')
    shutil.copy(root / 'videos' / '1.mp4', root / 'secret.mp4')
    (root / 'text.mp4').write_text('root:x:0:0:root')
    (root / 'hls.mp4').write_text('#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://secret.mp4\n')
    (root / 'folder.mp4').mkdir()
    os.mkfifo(root / 'fifo.mp4')
    name, file, *base = claims(root)
    found = os.stat(file)
    state = FileState(found.st_size, found.st_mtime_ns, None, None)

    def served(name):
        return open_served(str(base[0] if base else root / 'videos'), name, state, follow_links)

    if follow_links and name in ('link.mp4', 'out/secret.mp4'):  # who starts the page allows it
        with served(name) as opened:
            assert opened.read() == (root / 'secret.mp4').read_bytes()
        return
    with pytest.raises(FileNotFoundError, match='has changed since it was indexed .* or is outside') as caught:
        served(name)
    with pytest.raises(FileNotFoundError) as missing:
        served('nothing.mp4')
    assert str(caught.value) == str(missing.value)  # nobody learns which files there are
    assert str(root) not in str(caught.value) and 'passwd' not in str(caught.value)


def test_a_file_is_served_that_was_opened_and_no_other_under_its_name(folder, tmp_path):
    shutil.copytree(folder / 'videos', tmp_path / 'videos')
    path = tmp_path / 'videos' / '0.mp4'
    content, found = path.read_bytes(), path.stat()
    with open_served(str(path.parent), path.name, FileState(found.st_size, found.st_mtime_ns, None, None)) as file:
        shutil.copy(tmp_path / 'videos' / '1.mp4', tmp_path / 'other')
        os.replace(tmp_path / 'other', path)
        assert file.read() == content
        picture = middle_frame(path_by_handle(file, 'nowhere'), None, None)
    assert picture != middle_frame(str(path), None, None)
