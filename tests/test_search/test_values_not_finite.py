"""Checkpoints and CLIP weights of values that are no numbers, or so large that none comes out: no index is made."""
import json
import shutil
import sqlite3

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import demo_config, write_demo
from tests.tools import run_tool
from vop_mm.apis import VideoSearcher, init_model
from vop_mm.engine.checkpoint import CheckpointError


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = write_demo(tmp_path_factory.mktemp('made'))
    return folder


def spoiled(made, path, value, tower):
    content = torch.load(made / 'a.pth', weights_only=True)
    tensor = content['state_dict'][f'{tower}_tower.prompts.0.weight']
    tensor.copy_(torch.randn_like(tensor).sign() * value)
    if path.suffix == '.pth':
        torch.save(content, path)
    else:
        save_file(dict(content['state_dict']), path, metadata=dict(meta=json.dumps(content['meta'])))
    return path


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('tower', ['text', 'vision'])
def test_are_refused_by_name_wherever_they_are_loaded(made, tmp_path, ending, value, tower):
    path = spoiled(made, tmp_path / f'b{ending}', value, tower)
    for load in (lambda: init_model(str(made / 'config.py'), path),
                 lambda: VideoSearcher(str(made / 'config.py'), path),
                 lambda: VideoSearcher(str(made / 'config.py'), {'b': path}),
                 lambda: VideoSearcher(str(made / 'config.py'), {'a': made / 'a.pth'}).add_prompts('b', path)):
        says = f'b{ending} is refused: .*{tower}_tower.prompts.0.weight is not finite'
        with pytest.raises(CheckpointError, match=says):
            load()


@pytest.mark.parametrize('tower', ['text', 'vision'])
def test_values_that_overflow_leave_no_index(made, tmp_path, tower):
    path = spoiled(made, tmp_path / 'b.pth', 1e30, tower)
    with pytest.raises(CheckpointError, match='embeddings of .*b.pth are not finite') as caught:
        VideoSearcher(str(made / 'config.py'), path).build_index(made / 'videos', tmp_path / 'index')
    assert '\n' not in str(caught.value) and not (tmp_path / 'index').exists()
    done = run_tool('tools/index_videos.py', made / 'videos', tmp_path / 'index', '--config', made / 'config.py',
                    '--checkpoint', path)
    assert done.returncode == 1 and 'b.pth are not finite' in done.stderr
    assert 'Traceback' not in done.stderr and not (tmp_path / 'index').exists()


def test_values_that_overflow_find_nothing_silently_no_more(made, tmp_path):
    """An index of good vectors, searched with prompts that make none."""
    searcher = VideoSearcher(str(made / 'config.py'), made / 'a.pth')
    searcher.build_index(made / 'videos', tmp_path / 'index')
    shutil.copy(made / 'a.pth', tmp_path / 'moved.pth')
    path = spoiled(made, tmp_path / 'b.pth', 1e30, 'vision')
    db = sqlite3.connect(tmp_path / 'index' / 'catalogue.db')  # or the checkpoint was spoiled since
    source = json.loads(db.execute("SELECT value FROM meta WHERE key = 'source'").fetchone()[0])
    db.execute("UPDATE meta SET value = ? WHERE key = 'source'", (json.dumps(dict(source, checkpoint=str(path))), ))
    db.commit()
    db.close()
    with pytest.raises(CheckpointError, match='embeddings of .*b.pth are not finite'):
        VideoSearcher.from_index(tmp_path / 'index').encode_video(made / 'videos' / 'a.mp4')


@pytest.mark.parametrize('ending', ['.pt', '.safetensors'])
def test_clip_weights_that_are_not_finite(made, tmp_path, ending):
    cfg = demo_config('baselines/zero_shot_demo.py')
    weights = load_file(cfg.model.backbone.weights)
    weights['visual.proj'][0, 0] = float('nan')
    cfg.model.backbone.weights = str(tmp_path / f'clip{ending}')
    (torch.save if ending == '.pt' else save_file)(weights, cfg.model.backbone.weights)
    says = f'clip{ending} is not a readable file of CLIP weights: visual.proj is not finite'
    with pytest.raises(ValueError, match=says):
        init_model(cfg)
