"""The programs of docs/en/deployment.md find what the searcher finds."""
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from tests.checkpoints import write_checkpoint
from tests.tools import ROOT
from tests.versions import needs
from tests.videos import encode_video
from vop_mm.apis import VideoSearcher, init_model
from vop_mm.config import read_config
from vop_mm.deployment.onnx_export import LOWEST_TORCH, export_onnx
from vop_mm.models.backbones.open_clip_port import OpenCLIP
from vop_mm.search.clip_loader import ClipLoader

for package in ('onnx', 'onnxruntime', 'onnxscript'):
    pytest.importorskip(package)
pytestmark = needs('torch', LOWEST_TORCH, 'the exporter')
TOLERANCE = 1e-4
ARCH = dict(embed_dim=64, quick_gelu=True,
            vision_cfg=dict(image_size=40, patch_size=8, width=64, layers=1, head_width=16),
            text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1))


def test_the_programs_of_the_page_find_what_the_retriever_finds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(ROOT / 'configs/vop/vop_msrvtt.py')
    torch.manual_seed(0)  # with some weights all clips are alike
    save_file(OpenCLIP(ARCH).model.state_dict(), 'clip.safetensors')
    cfg.model.backbone = dict(type='OpenCLIP', arch=ARCH, weights=str(tmp_path / 'clip.safetensors'))
    cfg = read_config(cfg)
    checkpoint = write_checkpoint(tmp_path / 'vop.pth', cfg, seed=0)
    export_onnx(init_model(cfg, checkpoint), 'exported', checkpoint)
    for name, frames, size in (('a.mp4', 50, (96, 120)), ('b.mp4', 7, (120, 90)), ('c.mp4', 30, (64, 64))):
        encode_video(tmp_path / name, frames, size=size)
    searcher = VideoSearcher(cfg, checkpoint)
    searcher.build_index('.', 'gallery')

    page, found = (ROOT / 'docs/en/deployment.md').read_text(), {}
    for program in re.findall(r'```python\n(.*?)```', page, re.DOTALL):
        exec(program, found)
    loader = ClipLoader(cfg)
    for path, frames in zip(('a.mp4', 'b.mp4'), found['frames'], strict=True):
        assert np.array_equal(frames, loader.load(path)[0][0])
    texts = searcher.encode_text(['a squid is talking', 'a man cooks'])
    videos = searcher.encode_video(['a.mp4', 'b.mp4'])
    assert np.abs(found['cosines'] - texts @ videos.T).max() < TOLERANCE
    assert np.ptp(found['cosines'], axis=0).min() > 10 * TOLERANCE
    assert np.ptp(found['cosines'], axis=1).min() > 10 * TOLERANCE
    hits = searcher.search('a squid is talking', index='gallery', k=5)
    assert len(hits) == len(found['moments']) == 3
    assert [path.decode() for path, _, _ in found['moments']] == [Path(hit.path).name for hit in hits]
    assert np.abs(found['scores'][0, :3] - [hit.score for hit in hits]).max() < TOLERANCE
