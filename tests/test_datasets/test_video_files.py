"""Which files of a folder are videos."""
import os
import socket
import threading

import av
import pytest

from tests.videos import encode_video
from vop_mm.datasets.decoding import open_video_file
from vop_mm.datasets.video_files import VIDEO_EXTENSIONS, describe_left_out, find_videos
from vop_mm.utils import stalls

CONTAINERS = {
    ('mp4', 'h264', 'yuv420p'): '.3g2 .3gp .f4v .m4v .mov .mp4 .qt',
    ('mkv', 'h264', 'yuv420p'): '.mk3d .mkv',
    ('webm', 'vp8', 'yuv420p'): '.webm',
    ('avi', 'mpeg4', 'yuv420p'): '.avi .divx',
    ('asf', 'wmv2', 'yuv420p'): '.asf .wmv',
    ('flv', 'flv', 'yuv420p'): '.flv',
    ('gif', 'gif', 'rgb8'): '.gif',
    ('mpg', 'mpeg1video', 'yuv420p'): '.mpe .mpeg .mpg',
    ('vob', 'mpeg2video', 'yuv420p'): '.m2p .vob',
    ('ts', 'h264', 'yuv420p'): '.m2t .mts .tp .ts',
    ('m2ts', 'h264', 'yuv420p'): '.m2ts',
    ('ogv', 'vp8', 'yuv420p'): '.ogm .ogv',
}


def make(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b'x')


def test_every_extension_is_of_a_container_that_is_tried_below():
    assert VIDEO_EXTENSIONS == set(' '.join(CONTAINERS.values()).split())


@pytest.mark.parametrize('made', CONTAINERS, ids=lambda made: made[0])
def test_ffmpeg_reads_what_the_extensions_stand_for(tmp_path, made):
    container, codec, pix_fmt = made
    path = encode_video(tmp_path / f'a.{container}', 5, codec=codec, pix_fmt=pix_fmt)
    with open_video_file(path) as video, av.open(path, format=video.format) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 5


def test_names_of_any_bytes(tmp_path):
    names = [b'\xc4\xe3.mp4', b'a:b.mp4', b'-i.mp4', b'x' * 251 + b'.MP4', b'a\nb.mp4', 'é.mp4'.encode(),
             'e\u0301.mp4'.encode(), b'%03d.mp4', b'a b.mov', b'1.2.3.webm']
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b'x')
    found = find_videos(tmp_path)
    assert found.videos == sorted(map(os.fsdecode, names)) and not found.left_out
    assert find_videos(str(tmp_path)).videos == find_videos(os.path.relpath(tmp_path)).videos == found.videos


def test_what_systems_leave_is_left_out_by_name(tmp_path):
    rubbish = {
        'system files': ['.Trashes', '.Trash-1000', '@eaDir', 'sub/@eaDir', '#recycle', '$RECYCLE.BIN',
                               'System Volume Information', '.Spotlight-V100', '.fseventsd', 'lost+found'],
        'hidden': ['.cache', 'sub/.git']}
    for folders in rubbish.values():
        for folder in folders:
            make(tmp_path, f'{folder}/deep/deleted.mp4')
    make(tmp_path, '._a.mp4', 'sub/._a.mp4', '.b.mp4', 'sub/b.mp4.part', 'c.tmp', 'd.mp4.crdownload', 'a.mp4',
         'sub/film.part.mp4', 'my lost+found/e.mp4', 'recycle/f.mp4', 'x.part/g.mp4')
    found = find_videos(tmp_path)
    assert found.videos == ['a.mp4', 'my lost+found/e.mp4', 'recycle/f.mp4', 'sub/film.part.mp4', 'x.part/g.mp4']
    assert found.left_out == {
        'system files': sorted([*rubbish['system files'], '._a.mp4', 'sub/._a.mp4']),
        'hidden': sorted([*rubbish['hidden'], '.b.mp4']),
        'not fully downloaded': ['c.tmp', 'd.mp4.crdownload', 'sub/b.mp4.part']}
    assert not found.unreadable()


def test_a_hidden_folder_that_is_named_is_searched(tmp_path):
    make(tmp_path, '.Trashes/a.mp4')
    assert find_videos(tmp_path / '.Trashes').videos == ['a.mp4']


def test_linked_folders_are_searched_once_under_their_own_name_if_they_have_one(tmp_path):
    lib, disk = tmp_path / 'lib', tmp_path / 'disk'
    make(lib, 'real/a.mp4', 'b.mp4')
    make(disk, 'c.mp4', 'deep/d.mp4')
    for link, target in [('alias', lib / 'real'), ('holiday', disk), ('more', disk / 'deep'), ('up', tmp_path),
                         ('real/back', lib), ('linked.mp4', disk / 'c.mp4')]:
        (lib / link).symlink_to(target)
    found = find_videos(lib)
    assert found.videos == ['b.mp4', 'holiday/c.mp4', 'holiday/deep/d.mp4', 'linked.mp4', 'real/a.mp4']
    assert found.left_out == {'linked to a folder that was already searched': [
        'alias', 'more', 'real/back', 'up/disk', 'up/lib']}
    os.rename(lib / 'real', tmp_path / 'moved')
    (lib / 'real').symlink_to(tmp_path / 'moved')
    (lib / 'alias').unlink()
    assert 'real/a.mp4' in find_videos(lib).videos


def test_what_can_not_be_read_is_said_and_stops_nothing(tmp_path, monkeypatch):
    make(tmp_path, 'a.mp4', 'secret/b.mp4', 'film.mp4/c.mp4')
    os.mkfifo(tmp_path / 'fifo.mp4')
    os.mkfifo(tmp_path / 'fifo')
    for link, target in [('gone.mp4', 'nowhere'), ('disk', tmp_path / 'not mounted'), ('self.mp4', 'self.mp4'),
                         ('device.mp4', '/dev/zero')]:
        (tmp_path / link).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('socket.mp4')
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == 'secret':
            raise PermissionError(13, 'Permission denied', path)
        return real(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    found = find_videos(tmp_path)
    assert found.videos == ['a.mp4', 'film.mp4/c.mp4']
    assert found.unreadable() == {
        **dict.fromkeys(('fifo.mp4', 'device.mp4', 'socket.mp4'), 'not a regular file'),
        **dict.fromkeys(('gone.mp4', 'disk'), 'linked to nothing'),
        'secret': 'cannot be listed: Permission denied',
        'self.mp4': 'cannot be listed: Too many levels of symbolic links'}
    assert found.left_out['without a video extension'] == ['fifo']
    assert found.left_out['named like a video, but a folder'] == ['film.mp4']
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        find_videos(tmp_path / 'nowhere')


def test_a_folder_that_never_answers_is_left_behind(tmp_path, monkeypatch):
    """As one of a network drive whose server is gone."""
    make(tmp_path, 'stale/a.mp4', 'other/b.mp4')
    real, woken = os.scandir, threading.Event()

    def scandir(path):
        if os.path.basename(path) == 'stale':
            woken.wait()
        return real(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    monkeypatch.setattr(stalls, 'PATIENCE', 0.3)
    found = find_videos(tmp_path)
    woken.set()
    assert found.videos == ['other/b.mp4'] and found.unreadable() == {
        'stale': 'cannot be listed: no answer for 0.3 s'}


def test_what_was_left_out_is_one_line(tmp_path):
    make(tmp_path, *(f'{i}.txt' for i in range(9)), '1.JPG', '2.jpg', 'sub/3.jpg', 'README', 'x.m2v', 'v.mp4')
    make(tmp_path, '.a\x1b[2J\nb', *(f'.{i}' for i in range(5)), os.fsdecode(b'\xff.mp4.part'))
    said = describe_left_out(find_videos(tmp_path).left_out)
    assert said == ('left out: 6 hidden (.0, .1, .2, ...); 1 not fully downloaded (\\udcff.mp4.part); '
                    '14 files without a video extension (.txt 9, .jpg 3, without 1, ...)')
    assert describe_left_out({}) == ''
    assert describe_left_out({'without a video extension': ['a.txt']}) == (
        'left out: 1 file without a video extension (.txt 1)')
