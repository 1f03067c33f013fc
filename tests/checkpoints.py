"""Checkpoints as training writes them, without training."""
from pathlib import Path

import torch
from mmengine.config import Config

from tests.tools import ROOT
from tests.videos import encode_video
from vop_mm.config import read_config
from vop_mm.engine.checkpoint import describe
from vop_mm.models.tuning import trainable_parameters, trainable_state_dict
from vop_mm.registry import MODELS


def demo_config(name: str, **changes) -> Config:
    """A demo config whose mini CLIP is found from everywhere."""
    cfg = read_config(ROOT / 'configs' / name, {
        'model.backbone.weights': str(ROOT / 'demo/mini_clip/mini_clip.safetensors'), **changes})
    text = Config(cfg.to_dict()).pretty_text.replace("'demo/mini_clip", f"'{ROOT}/demo/mini_clip")
    return Config.fromstring(text, '.py')


def write_checkpoint(path: Path, cfg: Config, seed: int) -> Path:
    """A checkpoint whose trainable tensors are moved far from where training starts."""
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    torch.save(dict(state_dict=trainable_state_dict(model),
                    meta=dict(cfg=cfg.pretty_text, vop_mm=describe(model, cfg, 'demo'))), path)
    return path


def write_demo(folder: Path) -> Path:
    """``config.py`` and ``a.pth`` of VoP, and ``videos/a.mp4``, in a folder."""
    cfg = demo_config('vop/vop_demo.py')
    (folder / 'config.py').write_text(cfg.pretty_text)
    write_checkpoint(folder / 'a.pth', cfg, 0)
    (folder / 'videos').mkdir()
    encode_video(folder / 'videos' / 'a.mp4', 20)
    return folder
