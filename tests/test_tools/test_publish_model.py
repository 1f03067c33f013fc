"""A checkpoint to share: the hash in its name, what it holds, and that it is read like any other."""
import hashlib
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors import safe_open

from tests.checkpoints import write_checkpoint
from tests.test_engine.test_checkpoint import build, save
from tests.tools import run_tool
from vop_mm.apis import VideoSearcher
from vop_mm.engine.checkpoint import CheckpointError, load_trainable

TOOL = 'tools/model_converters/publish_model.py'


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_holds_what_trains_under_its_hash(tmp_path, ending):
    model = build(seed=1)
    source = save(model, tmp_path / 'epoch_3.pth', optimizer=dict(state={}, param_groups=[]))
    done = run_tool(TOOL, source, tmp_path / 'out' / f'mine.v1{ending}')
    assert done.returncode == 0, done.stderr
    path, = (tmp_path / 'out').iterdir()
    assert path.name == f'mine.v1-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}{ending}'
    assert str(path) in done.stdout

    other = build(seed=1)
    torch.nn.init.zeros_(other.vision_tower.prompts[0].weight)
    checkpoint = load_trainable(other, str(path))
    for (name, ours), theirs in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert set(checkpoint) == {'meta', 'state_dict'}
    assert checkpoint['meta']['vop_mm']['method'] == 'VoP' and checkpoint['meta']['epoch'] == 3
    assert set(checkpoint['meta']) == {'vop_mm', 'dataset_meta', 'epoch'}  # nothing of the machine it was trained on
    if ending == '.safetensors':
        with safe_open(path, 'pt') as file:
            assert json.loads(file.metadata()['meta']) == checkpoint['meta']

    again = run_tool(TOOL, path, tmp_path / 'again' / f'mine.v1{ending}')
    assert again.returncode == 0 and [p.name for p in (tmp_path / 'again').iterdir()] == [path.name]


def test_is_complete_with_a_clip(tmp_path):
    """The config of another method gives the CLIP alone: files of two methods share it, and embed as they did."""
    frames = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    files, expected = {}, {}
    for method in ('vop', 'vop_f_p'):
        cfg = Config.fromfile(f'configs/vop/{method}_demo.py')
        cfg.work_dir = '/home/me/secret'
        source = write_checkpoint(tmp_path / f'{method}.pth', cfg, seed=1)
        expected[method] = VideoSearcher(cfg, source)
        assert run_tool(TOOL, source, tmp_path / 'out' / f'{method}.safetensors').returncode == 0
        files[method], = (tmp_path / 'out').glob(f'{method}-*')
        content = files[method].read_bytes()
        assert b'secret' not in content and b'mini_clip.safetensors' not in content
    found = VideoSearcher('configs/baselines/zero_shot_demo.py', files)
    for method, alone in expected.items():
        np.testing.assert_array_equal(found.encode_video(frames, prompts=method), alone.encode_video(frames))
        np.testing.assert_array_equal(found.encode_text('a red cross moves left', prompts=method),
                                      alone.encode_text('a red cross moves left'))


def test_prompts_from_before_readclip_are_good_with_a_config_of_today(tmp_path):
    """The tool that refuses their config names the option with which it goes on; and what embeds alone, embeds."""
    frames = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    cfg = Config.fromfile('configs/vop/vop_demo.py')
    today = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [dict(type='OpenVideo'), *today[1:]]
    source = write_checkpoint(tmp_path / 'old.pth', cfg, seed=1)
    for says in (run_tool(TOOL, source, tmp_path / 'out.pth').stderr, str(pytest.raises(
            CheckpointError, VideoSearcher, 'configs/baselines/zero_shot_demo.py', dict(old=source)).value)):
        assert 'older version of vop_mm' in says and 'publish_model.py --config' in says and '--import' not in says
    other = run_tool(TOOL, source, tmp_path / 'out.pth', '--config', 'configs/vop/vop_f_p_demo.py')
    assert other.returncode == 1 and 'of the method VoP, and ' in other.stderr, other.stderr
    done = run_tool(TOOL, source, tmp_path / 'out.pth', '--config', 'configs/vop/vop_demo.py')
    assert done.returncode == 0, done.stderr
    file, = tmp_path.glob('out-*')
    found = VideoSearcher('configs/baselines/zero_shot_demo.py', dict(new=file))
    alone = VideoSearcher('configs/vop/vop_demo.py', source)
    np.testing.assert_array_equal(found.encode_video(frames), alone.encode_video(frames))


@pytest.mark.parametrize(('source', 'out', 'status', 'says'), [
    ('no.pth', 'out.pth', 1, 'checkpoint not found: no.pth'),
    ('no.pth', 'out.bin', 2, 'must end in .pth or .safetensors')])
def test_bad_input(tmp_path, source, out, status, says):
    done = run_tool(TOOL, source, tmp_path / out)
    assert done.returncode == status and says in done.stderr and not list(tmp_path.iterdir())
