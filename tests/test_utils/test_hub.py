"""A file of the hub: the one that is preferred of those that there are; without a network, that of the cache."""
from types import SimpleNamespace
from unittest.mock import Mock

import huggingface_hub
import pytest

from vop_mm.utils.hub import hub_file

NAMES = ['open_clip_model.safetensors', 'open_clip_pytorch_model.bin']


def find(cache):
    return hub_file('timm/x', NAMES, 'the weights', 'model.backbone.weights', str(cache))


@pytest.mark.parametrize(('there', 'chosen'), [
    ([*reversed(NAMES), 'a.txt'], NAMES[0]), (['a.txt', NAMES[1]], NAMES[1]), (['a.txt'], NAMES[0])])
def test_the_preferred_one_is_downloaded(monkeypatch, tmp_path, there, chosen):
    about = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in there])
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', Mock(return_value=about))
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download := Mock(return_value='file'))
    assert find(tmp_path) == 'file'
    download.assert_called_once_with('timm/x', chosen, cache_dir=str(tmp_path))


def test_without_a_network_the_cache_is_asked_once_and_quietly(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', Mock(side_effect=OSError))
    with pytest.raises(ConnectionError, match=r'^the weights can.t be downloaded .*\(OSError\).* '
                                              r'\(hf download timm/x --local-dir FOLDER\).*weights=FOLDER/FILE$'):
        find(tmp_path)
    snapshot = tmp_path / 'models--timm--x' / 'snapshots' / 'abc'
    snapshot.mkdir(parents=True)
    (tmp_path / 'models--timm--x' / 'refs').mkdir()
    (tmp_path / 'models--timm--x' / 'refs' / 'main').write_text('abc')
    (snapshot / NAMES[1]).touch()
    assert find(tmp_path) == str(snapshot / NAMES[1])
    assert capfd.readouterr() == ('', '')
