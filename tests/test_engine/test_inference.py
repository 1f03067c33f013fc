"""Models from a config and a checkpoint."""
import pytest
import torch
from mmengine.config import Config

from vop_mm.apis import init_model
from vop_mm.engine.checkpoint import CheckpointError, pack
from vop_mm.models.tuning import trainable_state_dict

CONFIG = 'configs/vop/vop_demo.py'


def saved(path, seed):
    """A checkpoint with prompts of its own."""
    torch.manual_seed(seed)
    model = init_model(CONFIG)
    checkpoint = dict(meta={}, state_dict=model.state_dict())
    pack(checkpoint, model, model.cfg)
    torch.save(checkpoint, path)
    return path, trainable_state_dict(model)


def test_is_built_loaded_and_ready_to_encode(tmp_path):
    path, prompts = saved(tmp_path / 'a.pth', seed=7)
    torch.manual_seed(0)
    model = init_model(Config.fromfile(CONFIG), path)
    assert not any(m.training for m in model.modules()) and model.cfg.method == 'VoP'
    for name, value in trainable_state_dict(model).items():
        assert torch.equal(value, prompts[name])
    frames, tokens = torch.randn(2, 12, 3, 40, 40), torch.tensor([[2, 5, 38, 0], [2, 9, 7, 38]])
    with torch.no_grad():
        per_frame, video, text = model.encode_frames(frames), model.encode_video(frames), model.encode_text(tokens)
    assert per_frame.shape == (2, 12, 64) and video.shape == (2, 64) and text.shape == (2, 64)
    for embedding in (per_frame, video, text):
        torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(embedding.shape[:-1]))
    mean = per_frame.mean(dim=1)
    torch.testing.assert_close(video, mean / mean.norm(dim=-1, keepdim=True))


def test_options_change_the_config_of_the_model_only(tmp_path):
    cfg = Config.fromfile(CONFIG)
    model = init_model(cfg, cfg_options={'model.backbone.weights': None})
    assert model.backbone.weights is None and cfg.model.backbone.weights is not None
    with pytest.raises(CheckpointError, match='other CLIP weights'):  # another CLIP than that of the checkpoint
        init_model(cfg, saved(tmp_path / 'a.pth', seed=0)[0], cfg_options={'model.backbone.weights': None})


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no.pth'):
        init_model(CONFIG, tmp_path / 'no.pth')
    with pytest.raises(FileNotFoundError, match='no.pt'):
        init_model(CONFIG, cfg_options={'model.backbone.weights': str(tmp_path / 'no.pt')})
