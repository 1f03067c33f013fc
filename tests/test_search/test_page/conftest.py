"""Indexes that the tests of the page share."""
import pytest

from tests.checkpoints import demo_config, write_checkpoint
from tests.videos import encode_video
from vop_mm.apis import VideoSearcher


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Videos, and their indexes: by two sets of prompts, without any, and by a method that changes CLIP itself."""
    folder = tmp_path_factory.mktemp('indexes')
    (folder / 'videos').mkdir()
    for i in range(3):
        encode_video(folder / 'videos' / f'{i}.mp4', 20, first=100 * i)
    made = dict(vop='vop/vop_demo.py', f_p='vop/vop_f_p_demo.py', zero='baselines/zero_shot_demo.py',
                partial='baselines/partial_demo.py')
    for seed, (name, config) in enumerate(made.items()):
        cfg = demo_config(config)
        checkpoint = None if name == 'zero' else write_checkpoint(folder / f'{name}.pth', cfg, seed)
        VideoSearcher(cfg, checkpoint, num_workers=1).build_index(folder / 'videos', folder / name)
    return folder
