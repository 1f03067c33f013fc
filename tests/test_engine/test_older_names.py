"""Files of the version in which the backbone was called clip."""
import shutil

import pytest
import torch
from mmengine.config import Config

from tests.checkpoints import demo_config, write_checkpoint
from tests.tools import ROOT
from vop_mm.apis import VideoSearcher, init_model
from vop_mm.config import read_config
from vop_mm.models.tuning import trainable_state_dict

WEIGHTS = ROOT / 'demo/mini_clip/mini_clip.safetensors'


def older(cfg):
    """The text of a config as that version dumped it."""
    content = cfg.to_dict()
    content['model'] = {'clip' if key == 'backbone' else key: value for key, value in content['model'].items()}
    text = Config(content).pretty_text
    assert 'clip=dict(' in text and 'backbone=' not in text
    return text


@pytest.fixture
def files(tmp_path):
    """A config, and a checkpoint of Full (tensors of the backbone) and of VoP, as that version wrote them."""
    for name, method in (('full', 'baselines/full_demo.py'), ('vop', 'vop/vop_demo.py')):
        cfg = demo_config(method)
        path = write_checkpoint(tmp_path / f'{name}.pth', cfg, 1)
        (tmp_path / f'{name}.py').write_text(older(cfg))
        content = torch.load(path, weights_only=True)
        state = {key.replace('backbone.', 'clip.', 1): value for key, value in content['state_dict'].items()}
        assert any(key.startswith('clip.model.') for key in state) == (name == 'full')
        content['meta']['cfg'] = older(cfg)
        torch.save(dict(content, state_dict=state), path)
        torch.save(content['state_dict'], tmp_path / f'{name}_expected.pt')
    return tmp_path


@pytest.mark.parametrize('name', ['full', 'vop'])
def test_config_and_checkpoint_load(files, name):
    expected = torch.load(files / f'{name}_expected.pt', weights_only=True)
    for config in (files / f'{name}.py', Config.fromfile(files / f'{name}.py')):
        state = trainable_state_dict(init_model(config, files / f'{name}.pth'))
        assert state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)


def test_options_reach_it_under_both_names(files):
    shutil.copy(WEIGHTS, files / 'other.safetensors')
    for config in (files / 'vop.py', ROOT / 'configs/vop/vop_demo.py'):
        for key in ('clip', 'backbone'):
            cfg = read_config(config, [f'model.{key}.weights={files}/other.safetensors'])
            assert cfg.model.backbone.weights == f'{files}/other.safetensors' and 'clip' not in cfg.model


def test_a_config_that_has_both_names_says_what_to_rename(files):
    path = files / 'child.py'
    path.write_text(f"_base_ = ['{ROOT}/configs/vop/vop_demo.py']\nmodel = dict(clip=dict(weights=None))\n")
    with pytest.raises(ValueError, match=r'child.py: model.clip is called model.backbone: rename it'):
        read_config(path)


def test_the_config_in_a_checkpoint_is_used_by_search(files):
    """Prompts of a checkpoint come with their own config, on the backbone of another one."""
    searcher = VideoSearcher(read_config(ROOT / 'configs/baselines/zero_shot_demo.py'), {'old': files / 'vop.pth'},
                             num_workers=1)
    alone = VideoSearcher(demo_config('vop/vop_demo.py'), files / 'vop.pth', num_workers=1)
    texts = ['a red square moves left']
    assert searcher.prompt_set('old').cfg.method == 'VoP'
    assert (searcher.encode_text(texts, prompts='old') == alone.encode_text(texts)).all()
