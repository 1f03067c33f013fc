"""The reference of all kinds of towers: without prompts it is open_clip's own model, with prompts that of CLIP."""
import pytest
import torch

from tests.backbone_kinds import BLOCKS, captions_of, frames_of, plain_model
from tests.versions import needs

from . import reference
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


def random_prompts(width, layers, *shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(*shape, width, generator=generator, dtype=torch.float64) for layer in layers}


@torch.no_grad()
def test_prompts_in_clip_are_those_of_its_own_reference():
    arch = BLOCKS['CLIP']
    state, (vision, text) = everything(plain_model(arch, dtype=torch.float64)), NUMBERS['CLIP']
    frames, prompts = frames_of(arch, 1, 2, dtype=torch.float64)[0], random_prompts(48, (0, 2), 4)
    close(video_tower(state, vision, frames, prompts)[0],
          torch.stack([reference.frame_embedding(state, frame, prompts, vision.heads) for frame in frames]), 1e-12)
    prompts = random_prompts(36, (0, 1, 2), 4)
    for ids in captions_of(arch, [5, 20])[:, :20].tolist():
        close(text_embedding(state, text, ids, prompts), reference.text_embedding(state, ids, prompts, {}, text.heads),
              1e-12)


@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_frames_mix_only_where_they_are_joined(kind):
    state, vision = everything(plain_model(BLOCKS[kind], dtype=torch.float64)), NUMBERS[kind][0]
    frames = frames_of(BLOCKS[kind], 1, 3, dtype=torch.float64)[0]
    prompts, position = random_prompts(48, (0, 1, 2), 2), random_prompts(48, [0], 3)[0]
    apart, summaries = video_tower(state, vision, frames, prompts)
    alone = [video_tower(state, vision, frame[None], prompts)[0][0] for frame in frames]
    close(apart, torch.stack(alone), 1e-12)
    joined, summaries_joined = video_tower(state, vision, frames, prompts, 1, position)
    assert (joined - apart).abs().max() > 1e-3
    close(summaries_joined[0], summaries[0], 1e-12)
    close(summaries_joined[1], summaries[1] + position, 1e-12)
    order = torch.tensor([2, 0, 1])
    close(video_tower(state, vision, frames[order], prompts, 1, position[order])[0], joined[order], 1e-12)
    own = {layer: tokens.expand(3, -1, -1) for layer, tokens in prompts.items()}  # of each frame
    close(video_tower(state, vision, frames, own)[0], apart, 1e-12)
