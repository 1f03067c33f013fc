"""Architectures that lie beside weights."""
import json
import shutil

import pytest
import torch

from tests.clips import SMALL
from tests.tools import ROOT
from vop_mm.models.backbones import OpenCLIP
from vop_mm.utils.architecture_file import read_architecture
from vop_mm.utils.shared_config import SharedConfigError, check_size


@pytest.fixture
def weights(tmp_path):
    """A weights file whose architecture ``Own`` lies beside it."""
    torch.manual_seed(0)
    torch.save(OpenCLIP(SMALL).model.state_dict(), tmp_path / 'own.pt')
    (tmp_path / 'Own.json').write_text(json.dumps(SMALL))
    return str(tmp_path / 'own.pt')


def model_of(weights):
    return dict(type='TextVideoRetriever', backbone=dict(type='OpenCLIP', arch='Own', weights=weights), num_frames=2,
                tuning=dict(type='ZeroShot'))


def test_weights_bring_their_architecture(weights):
    clip = OpenCLIP('Own', weights)
    assert clip.arch_name == 'Own' and clip.embed_dim == SMALL['embed_dim']
    check_size(model_of(weights))
    with pytest.raises(ValueError, match="no architecture 'Other'"):
        OpenCLIP('Other', weights)


def test_the_mini_clip_is_found_without_its_module(tmp_path):
    for name in ('MiniCLIP.json', 'mini_clip.safetensors'):
        shutil.copy(ROOT / 'demo/mini_clip' / name, tmp_path)
    assert read_architecture('MiniCLIP', str(tmp_path / 'mini_clip.safetensors'))['embed_dim'] == 64
    assert read_architecture('MiniCLIP', None) is read_architecture('MiniCLIP', 'openai') is None
    assert read_architecture('Mini', str(tmp_path / 'mini_clip.safetensors')) is None


@pytest.mark.parametrize(('text', 'says'), [
    ('[1]', 'Own.json: not an open_clip config'), ('{"a": 1', 'Own.json: '), (' ' * 100_001, 'not an open_clip')])
def test_a_file_of_another_form_is_refused(weights, tmp_path, text, says):
    (tmp_path / 'Own.json').write_text(text)
    with pytest.raises(ValueError, match=says):
        OpenCLIP('Own', weights)


def test_one_that_came_with_data_is_within_bounds(weights, tmp_path):
    large = dict(SMALL, vision_cfg=dict(SMALL['vision_cfg'], layers=10**9))
    (tmp_path / 'Own.json').write_text(json.dumps(large))
    with pytest.raises(SharedConfigError, match='Own.json.vision_cfg.layers'):
        check_size(model_of(weights))
