"""A checkpoint that would run code when it is unpickled: every tool that reads one refuses it, and nothing runs."""
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool

PUBLISHED = Path(__file__).parents[1] / 'data' / 'modelscope_prefix8'


class Code:

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (self.trace, )


@pytest.fixture
def crafted(tmp_path):
    """In all else a checkpoint of VoP on the mini CLIP, as training writes it."""
    state = {f'{tower}_tower.prompts.0.weight': torch.zeros(4, 8, 64) for tower in ('vision', 'text')}
    torch.save(dict(meta={}, state_dict=state, message_hub=Code(str(tmp_path / 'it_ran'))), tmp_path / 'crafted.pth')
    return tmp_path / 'crafted.pth'


def test_it_would_run(crafted, tmp_path):
    """With a reader that is not safe."""
    with pytest.raises(Exception, match='File exists'):
        for _ in range(2):
            torch.load(crafted, weights_only=False)
    assert (tmp_path / 'it_ran').is_dir()


@pytest.mark.parametrize('reads', ['resume', 'resume the last', 'load_from', 'CLIP', 'test', 'publish', 'index',
                                   'extract', 'export', 'published checkpoint', 'published CLIP'])
def test_is_refused(crafted, small_demo, tmp_path, reads):
    work, videos = tmp_path / 'work', small_demo / 'videos'
    train = ('tools/train.py', TRAIN, '--work-dir', work)
    if reads == 'resume the last':
        work.mkdir()
        shutil.copy(crafted, work / 'epoch_1.txt')  # last_checkpoint names a file of its folder, whatever its ending
        (work / 'last_checkpoint').write_text('epoch_1.txt')
    if reads.startswith('published'):
        shutil.copytree(PUBLISHED, tmp_path / 'published')
        which = 'ViT-B-32.pt' if reads.endswith('CLIP') else 'VoP_msrvtt9k.pth'
        shutil.copy(crafted, tmp_path / 'published' / which)
    done = run_tool(*{
        'resume': (*train, '--resume', crafted, *options(small_demo)),
        'resume the last': (*train, '--resume', *options(small_demo)),
        'load_from': (*train, *options(small_demo, load_from=crafted)),
        'CLIP': (*train, *options(small_demo, **{'model.backbone.weights': crafted})),
        'test': ('tools/test.py', TRAIN, crafted, '--work-dir', work, *options(small_demo)),
        'publish': ('tools/model_converters/publish_model.py', crafted, tmp_path / 'out.pth'),
        'index': ('tools/index_videos.py', videos, tmp_path / 'index', '--config', TRAIN, '--checkpoint', crafted),
        'extract': ('tools/extract_features.py', videos, tmp_path / 'out', '--config', TRAIN, '--checkpoint', crafted),
        'export': ('tools/deployment/export_onnx.py', TRAIN, crafted, tmp_path / 'out'),
    }.get(reads, ('tools/model_converters/modelscope_to_vop.py', tmp_path / 'published', tmp_path / 'out.pth')))
    assert not (tmp_path / 'it_ran').exists()
    error = next(line for line in done.stderr.splitlines() if line.startswith('error: '))
    assert done.returncode == 1 and 'refused' in error, done.stderr
    assert not [*work.glob('*.pth'), *tmp_path.glob('out*'), *tmp_path.glob('index*')]


def test_a_pickle_alone_is_refused(small_demo, tmp_path):
    """Not in an archive of torch."""
    (tmp_path / 'crafted.pth').write_bytes(pickle.dumps(Code(str(tmp_path / 'it_ran'))))
    done = run_tool('tools/test.py', TRAIN, tmp_path / 'crafted.pth', '--work-dir', tmp_path / 'work',
                    *options(small_demo))
    assert done.returncode == 1 and 'crafted.pth is' in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'it_ran').exists()
