"""A disk that is full: one line that says so, what was whole stays whole, and with room again it goes on."""
import os
import subprocess

import pytest
import torch

from tests.checkpoints import demo_config, write_checkpoint
from tests.test_tools.test_bad_input import assert_one_line
from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool
from vop_mm.datasets import FrameStore

SAYS = 'No space left on device'


@pytest.fixture
def disk(tmp_path):
    """A folder that is a file system of its own, of 4 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f'no file system can be made here: {made.stderr.strip()}')
    yield folder
    subprocess.run(['umount', '--lazy', folder], check=True)


def fill(disk, room):
    """Take all space but so many bytes."""
    free = os.statvfs(disk)
    (disk / 'filler').write_bytes(b'x' * (free.f_bavail * free.f_bsize - room))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'vop.pth', demo_config('vop/vop_demo.py'), seed=0)


@pytest.mark.parametrize('room', [0, 50_000], ids=['not a line of the log fits', 'half a checkpoint fits'])
def test_training_leaves_the_last_checkpoint(disk, small_demo, room):
    arguments = ['tools/train.py', TRAIN, '--work-dir', disk / 'work']
    one = options(small_demo, **{'train_cfg.max_epochs': 1, 'default_hooks.logger.interval': 100})
    assert run_tool(*arguments, *one).returncode == 0
    whole = (disk / 'work/epoch_1.pth').read_bytes()
    assert len(whole) > room
    fill(disk, room)
    two = options(small_demo, **{'train_cfg.max_epochs': 2, 'default_hooks.logger.interval': 100})
    assert_one_line(run_tool(*arguments, '--resume', *two), SAYS, 'epoch_2.pth' if room else '')
    assert (disk / 'work/epoch_1.pth').read_bytes() == whole
    assert (disk / 'work/last_checkpoint').read_text().endswith('epoch_1.pth')
    assert not (disk / 'work/epoch_2.pth').exists() and not list((disk / 'work').glob('.*.tmp'))
    (disk / 'filler').unlink()
    assert run_tool(*arguments, '--resume', *two).returncode == 0
    assert torch.load(disk / 'work/epoch_2.pth', weights_only=True)['meta']['epoch'] == 2


@pytest.mark.parametrize('room', [60_000, 180_000, 220_000], ids=['nothing', 'an empty index', 'the catalogue'])
def test_an_index_goes_on(disk, small_demo, checkpoint, room):
    fill(disk, room)
    arguments = ['tools/index_videos.py', small_demo / 'videos', disk / 'index', '--config', TRAIN,
                 '--checkpoint', checkpoint, '--workers', '2']
    assert_one_line(run_tool(*arguments), SAYS, 'catalogue.db')
    assert not list(disk.rglob('.new*'))
    (disk / 'filler').unlink()
    done = run_tool(*arguments)
    assert done.returncode == 0 and ': 49 clips;' in done.stdout, done.stderr


def test_a_store_of_frames_goes_on(disk, small_demo):
    fill(disk, 200_000)
    arguments = ['tools/data/cache_frames.py', TRAIN, '--out', disk / 'frames', '--workers', '2', *options(small_demo)]
    assert_one_line(run_tool(*arguments), SAYS, 'frames/train')
    (disk / 'filler').unlink()
    done = run_tool(*arguments)
    assert done.returncode == 0, done.stderr
    assert '24 clips, ' in done.stdout and '24 clips, 24 of them new' not in done.stdout
    assert FrameStore(disk / 'frames/train')


def test_copies_of_videos_go_on(disk, small_demo):
    """One line, and not one for each video that is left."""
    fill(disk, 60_000)
    arguments = ['tools/data/compress_videos.py', small_demo / 'videos', disk / 'copies']
    assert_one_line(run_tool(*arguments), SAYS, 'copies')
    (disk / 'filler').unlink()
    done = run_tool(*arguments)
    assert done.returncode == 0 and '49 of 49 videos' in done.stdout, done.stderr


def test_a_file_with_one_name_is_not_there(disk, small_demo, checkpoint):
    fill(disk, 4096)
    data = options(small_demo)
    for tool, *arguments in (
            ('tools/model_converters/publish_model.py', checkpoint, disk / 'published.pth'),
            ('tools/visualizations/browse_dataset.py', TRAIN, disk / 'clips.png', *data),
            ('tools/test.py', TRAIN, checkpoint, '--work-dir', disk.parent / 'work', '--dump', disk / 'all.npz', *data),
    ):
        assert_one_line(run_tool(tool, *arguments), SAYS)
        assert [path.name for path in disk.iterdir()] == ['filler'], tool
