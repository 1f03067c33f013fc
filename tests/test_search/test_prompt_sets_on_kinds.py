"""Prompt sets that share a backbone that is not CLIP."""
import copy

import numpy as np
import pytest
import torch

from tests.backbone_kinds import KINDS
from tests.checkpoints import demo_config, write_checkpoint
from tests.clips import build_clip
from tests.hf_tokenizers import write_tokenizer
from tests.versions import needs
from vop_mm.apis import VideoSearcher
from vop_mm.registry import TOKENIZERS
from vop_mm.search.prompt_set import _name_folder

pytestmark = needs('open_clip_torch', '3.3', 'not all kinds of towers')
METHODS = {name: f'vop/{name}_demo.py' for name in ('vop', 'vop_f_c')}


@pytest.fixture(scope='module')
def configs():
    return {name: demo_config(config) for name, config in METHODS.items()}


@pytest.fixture
def files(request, configs, tmp_path):
    """A config and a checkpoint of each method on one file of weights."""
    arch = copy.deepcopy(KINDS[request.param])
    size = arch['vision_cfg']['image_size']
    torch.save(build_clip(arch, rough=0.1).model.state_dict(), tmp_path / 'weights.pt')
    made = {}
    for seed, name in enumerate(METHODS):
        cfg = copy.deepcopy(configs[name])
        cfg.model.backbone = dict(type='OpenCLIP', arch=arch, weights=str(tmp_path / 'weights.pt'))
        if 'video_from' in cfg.model:
            cfg.model.video_from = 2
        for split in ('train', 'val', 'test'):
            read, tokenize, _ = cfg[f'{split}_dataloader'].dataset.pipeline
            read.size = (size, size) if isinstance(size, int) else size
            tokenize.tokenizer.context_length = arch['text_cfg']['context_length']
        cfg.model.text_prompts[0].num_tokens = 4
        made[name] = cfg, write_checkpoint(tmp_path / f'{name}.pth', cfg, seed)
    return made


@pytest.mark.parametrize('files', ['SigLIP', 'PE-Core', 'CoCa'], indirect=True)
def test_checkpoints_on_one_backbone_are_as_each_alone(files):
    generator = np.random.default_rng(0)
    videos = [generator.integers(0, 256, (frames, 40, 60, 3), dtype=np.uint8) for frames in (12, 5)]
    texts = ['a red square moves left', 'a circle']
    several = VideoSearcher(files['vop'][0], {'vop': files['vop'][1]})
    several.add_prompts('vop_f_c', files['vop_f_c'][1])
    alone = {}
    for name in several.prompts:
        one = VideoSearcher(*files[name])
        alone[name] = one.encode_video(videos), one.encode_text(texts)
    for name in ('vop_f_c', 'vop', 'vop_f_c'):
        np.testing.assert_allclose(several.encode_video(videos, prompts=name), alone[name][0], atol=1e-6)
        np.testing.assert_allclose(several.encode_text(texts, prompts=name), alone[name][1], atol=1e-6)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(alone['vop'], alone['vop_f_c']))
    assert several.prompt_set('vop').model.backbone is several.prompt_set('vop_f_c').model.backbone


@pytest.mark.parametrize('kind', ['HFTokenizer', 'vop_mm.HFTokenizer'])
def test_the_folder_of_a_tokenizer_is_named_so_that_an_index_opens_anywhere(kind, tmp_path, monkeypatch):
    pytest.importorskip('transformers')
    write_tokenizer(tmp_path / 'mine', 'mt5')
    monkeypatch.chdir(tmp_path)
    cfg = dict(pipeline=[dict(type='ReadClip'), dict(type='TokenizeText', tokenizer=dict(type=kind, name='mine'))])
    _name_folder(cfg, TOKENIZERS.build(dict(type='HFTokenizer', name='mine')))
    assert cfg['pipeline'][1]['tokenizer']['name'] == str(tmp_path / 'mine')
