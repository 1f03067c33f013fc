"""ONNX files of towers that are not CLIP's, run in onnxruntime beside the model."""
import numpy as np
import pytest
import torch

from tests.backbone_kinds import KINDS, captions_of
from tests.clips import build_clip, generic
from tests.versions import needs
from vop_mm.registry import MODELS

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
from vop_mm.deployment.onnx_export import (  # noqa: E402
    LOWEST_TORCH,
    TextEncoder,
    VideoEncoder,
    largest_difference,
    open_session,
    write_onnx,
)

pytestmark = [needs('torch', LOWEST_TORCH, 'the exporter'), needs('open_clip_torch', '3.3', 'not all kinds of towers')]
FRAMES = 3


def small(kind, **changes):
    """With two layers of vision and one of text, to be exported in seconds."""
    clip = build_clip(KINDS[kind], rough=0.1)
    del clip.vision_blocks[2:], clip.text_blocks[1:]
    model = MODELS.build(dict(type='TextVideoRetriever', backbone=clip, num_frames=FRAMES, text_prompts=[generic(3)],
                              **changes))
    return model.eval()


def exported(encoder, folder):
    write_onnx(encoder, folder / 'tower.onnx')
    return open_session(folder / 'tower.onnx', num_threads=1)


def assert_same(found, expected):
    assert found.shape == tuple(expected.shape) and np.abs(found - expected.numpy()).max() <= 1e-5
    assert len(found) == 1 or np.abs(found[0] - found[1]).max() > 1e-3


def random_videos(model, count):
    """uint8 [B, F, 3, H, W], and normalized outside of the model."""
    shape = count, FRAMES, 3, *model.backbone.image_size
    pixels = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    declared = model.backbone.preprocessing
    mean, std = (np.array(x)[:, None, None] for x in (declared.mean, declared.std))
    return pixels, torch.from_numpy((pixels / 255.0 - mean) / std).float()


@torch.no_grad()
def test_frames_with_prompts(tmp_path):
    model = small('SigLIP', frame_prompts=[generic(2)])
    session = exported(VideoEncoder(model), tmp_path)
    for count in (1, 3):
        pixels, frames = random_videos(model, count)
        assert_same(session.run(None, dict(frames=pixels))[0], model.encode_video(frames))


@pytest.mark.parametrize('kind', ['PE-Core', 'SigLIP', 'CoCa'])
@torch.no_grad()
def test_joined_frames_with_prompts_and_padding(kind, tmp_path):
    model = small(kind, frame_prompts=[generic(2)], video_prompts=[generic(3)], video_from=1,
                  data_preprocessor=dict(type='VideoTextPreprocessor', short_videos='mask'))
    session = exported(VideoEncoder(model), tmp_path)
    for count in (1, 3):
        pixels, frames = random_videos(model, count)
        mask = np.arange(FRAMES)[None] < np.array([2, 1, 3])[:count, None]
        found = session.run(None, dict(frames=pixels, frame_mask=mask))[0]
        assert_same(found, model.encode_video(frames, torch.from_numpy(mask)))


@pytest.mark.parametrize('kind', ['PE-Core', 'SigLIP', 'CoCa', 'MobileCLIP2-L'])
@torch.no_grad()
def test_captions_with_prompts(kind, tmp_path):
    model = small(kind)
    length, encoder = KINDS[kind]['text_cfg']['context_length'], TextEncoder(model)
    session = exported(encoder, tmp_path)
    for lengths in ([9], [5, length], [4, length - 3, length - 2, 12]):
        tokens = captions_of(KINDS[kind], lengths)
        assert_same(session.run(None, dict(tokens=tokens.numpy()))[0], model.encode_text(tokens))
    assert largest_difference(tmp_path / 'tower.onnx', encoder) < 1e-5
    shape = session.get_inputs()[0].shape
    assert shape == ['batch', 'length' if kind == 'PE-Core' else length]
