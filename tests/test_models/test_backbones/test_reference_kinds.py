"""The reference without prompts is open_clip's own model, of every kind of tower; the small models are what they say."""
import open_clip
import pytest
import timm
import torch

from tests.backbone_kinds import BLOCKS, KINDS, captions_of, frames_of, plain_model
from tests.versions import needs

from .kind_numbers import NUMBERS
from .reference_kinds import text_embedding, video_tower

pytestmark = needs('open_clip_torch', '3.3', 'not all kinds of towers')


def everything(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def close(a, b, atol):
    return torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_frames_without_prompts(kind):
    model = plain_model(BLOCKS[kind], dtype=torch.float64)
    frames = frames_of(BLOCKS[kind], 1, 2, dtype=torch.float64)[0]
    expected = model.encode_image(frames, normalize=True)
    assert expected[0] @ expected[1] < 0.999
    close(video_tower(everything(model), NUMBERS[kind][0], frames)[0], expected, 1e-9)


@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_captions_without_prompts(kind):
    model = plain_model(BLOCKS[kind], dtype=torch.float64)
    tokens = captions_of(BLOCKS[kind], [5, 10, BLOCKS[kind]['text_cfg']['context_length']])
    expected = model.encode_text(tokens, normalize=True)
    assert (expected @ expected.T - 2 * torch.eye(3)).max() < 0.999
    close(torch.stack([text_embedding(everything(model), NUMBERS[kind][1], ids) for ids in tokens.tolist()]), expected,
          1e-9)
