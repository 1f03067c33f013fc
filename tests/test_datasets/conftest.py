"""Videos that several files' tests read."""
import pytest

from tests.datasets import annotation
from tests.videos import encode_video


@pytest.fixture(scope='session')
def whole(tmp_path_factory):
    """Four videos of 60 frames; frames of video i are numbered from 100 i. Not to be changed."""
    folder = tmp_path_factory.mktemp('whole')
    (folder / 'videos').mkdir()
    for i in range(4):
        encode_video(folder / 'videos' / f'v{i}.mp4', 60, first=100 * i)
    annotation(folder, {f'v{i}': [f'{c}{i}' for c in 'abc'[:i]] or ['z'] for i in range(4)})
    return folder
