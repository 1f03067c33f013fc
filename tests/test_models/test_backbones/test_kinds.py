"""Retrievers on every kind of open_clip's towers: without prompts open_clip's own, with prompts the reference's."""
import pytest
import torch

from tests.backbone_kinds import BLOCKS, KINDS, captions_of, end_of, frames_of, plain_model, roughen_statistics
from tests.clips import build_retriever, generic
from tests.versions import needs
from vop_mm.models.prompts import LayerContext

from .kind_numbers import NUMBERS
from .reference_kinds import text_embedding, video_tower

pytestmark = needs('open_clip_torch', '3.3', 'not all kinds of towers')
POSITION = dict(type='PositionPrompt', num_tokens=2, init_std=0.5)
CONTEXT = dict(type='ContextPrompt', num_tokens=2)
METHODS = {
    'VoP': dict(frame_prompts=[generic(3)]),
    'VoP-P': dict(frame_prompts=[generic(2), POSITION]),
    'VoP-C': dict(frame_prompts=[generic(1), CONTEXT]),
    'VoP-F': dict(frame_prompts=[generic(2)], video_prompts=[generic(3)], video_from=1),
    'VoP-F+C': dict(frame_prompts=[CONTEXT], video_prompts=[generic(2), CONTEXT], video_from=1),
    'some layers': dict(frame_prompts=[dict(generic(3), layers=[(0, 1), (2, 3)])]),
    'joined from the first layer': dict(frame_prompts=[], video_prompts=[generic(2)], video_from=0),
}


def build(kind, **kwargs):
    model = build_retriever(KINDS[kind], dtype=torch.float64, rough=0.1, num_frames=3, **kwargs)
    roughen_statistics(model.backbone, 0.1)
    return model


def state_of(model):
    clip = model.backbone.model
    return {**dict(clip.named_parameters()), **dict(clip.named_buffers())}


def frames(kind, videos=1, count=3):
    return frames_of(KINDS[kind], videos, count, dtype=torch.float64)


def captions(kind, *lengths):
    return captions_of(KINDS[kind], lengths or [5, 12, KINDS[kind]['text_cfg']['context_length']])


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def gradients(out, parameters):
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return torch.autograd.grad((out * direction).sum(), parameters, allow_unused=True)


def assert_same(ours, theirs, parameters, names=None):
    """In value, and in the gradient of a random direction."""
    close(ours, theirs)
    names = names or range(len(parameters))
    for name, mine, other in zip(names, gradients(ours, parameters), gradients(theirs, parameters), strict=True):
        assert (mine is None) == (other is None), name
        assert mine is None or (mine - other).norm() <= 1e-8 * max(1, other.norm()), name


# -- without prompts ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', KINDS)
def test_without_prompts_it_is_open_clips_own_model(kind):
    model, plain = build(kind, tuning=dict(type='FullTuning')), plain_model(KINDS[kind], dtype=torch.float64)
    plain.load_state_dict(model.backbone.model.state_dict())
    mine, own = (dict(m.named_parameters()) for m in (model.backbone.model, plain))
    assert mine.keys() == own.keys()
    pixels, tokens = frames(kind, 2, 1), captions(kind)
    ours = torch.cat([model.encode_frames(pixels).flatten(0, 1), model.encode_text(tokens)])
    theirs = torch.cat([plain.encode_image(pixels.flatten(0, 1), normalize=True),
                        plain.encode_text(tokens, normalize=True)])
    close(ours, theirs)
    for name, a, b in zip(mine, gradients(ours, [*mine.values()]), gradients(theirs, [*own.values()])):
        assert (a is None) == (b is None) == name.startswith('logit_'), name
        assert a is None or (a - b).norm() <= 1e-8 * max(1, b.norm()), name


# -- frames with prompts -----------------------------------------------------------------------------------------------
def prompts_of(tower, depth):
    """Layer -> function of the frames' summaries that returns the tokens of the reference."""

    def tokens(layer, summaries):
        context = LayerContext(layer, summaries[None])
        found = [p.tokens(context)[0] for p in tower.prompts if layer in p.layers]
        if not found:
            return summaries.new_zeros(0, summaries.shape[1])
        if layer >= tower.video_from:
            return torch.cat([t.flatten(0, 1) for t in found])
        return torch.cat([t.expand(len(summaries), -1, -1) for t in found], dim=1)

    return {layer: lambda summaries, layer=layer: tokens(layer, summaries) for layer in range(depth)}


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('kind', BLOCKS)
def test_frames_with_prompts(kind, method):
    model = build(kind, **METHODS[method])
    tower, pixels = model.vision_tower, frames(kind)
    parameters = dict(tower.named_parameters())
    expected, _ = video_tower(state_of(model), NUMBERS[kind][0], pixels[0], prompts_of(tower, 3), tower.video_from,
                              getattr(tower, 'frame_position', None))
    assert_same(model.encode_frames(pixels)[0], expected, [*parameters.values()], [*parameters])


@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_padding_frames_are_as_if_they_were_not_there(kind):
    model, pixels = build(kind, **METHODS['VoP-F']), frames(kind, 2)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    ours = model.encode_frames(pixels, mask)
    close(ours[:1, :2], model.encode_frames(pixels[:1, :2]))
    close(ours[1:], model.encode_frames(pixels[1:]))


@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_prompts_that_nothing_attends_to_change_nothing(kind):
    """Patches keep their rotary positions behind any number of prompts."""
    backbone = build(kind).backbone
    cls, patches = backbone.embed_frames(frames(kind)[0])
    generator = torch.Generator().manual_seed(4)
    for layer in range(3):
        expected = backbone.run_vision_block(layer, torch.cat([cls, patches], dim=1), cls.shape[1])
        for count in (1, 4):
            prompts = torch.randn(3, count, cls.shape[2], generator=generator, dtype=torch.float64)
            x = torch.cat([cls, prompts, patches], dim=1)
            seen = torch.ones(x.shape[:2], dtype=torch.bool)
            seen[:, cls.shape[1]:cls.shape[1] + count] = False
            x = backbone.run_vision_block(layer, x, cls.shape[1] + count, seen)
            close(x[seen], expected.flatten(0, 1))


@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_a_frame_that_sees_only_itself_is_as_alone(kind):
    """Patches of all frames have the rotary positions that they have in their frame."""
    backbone = build(kind).backbone
    cls, patches = backbone.embed_frames(frames(kind)[0])
    for layer in range(3):
        expected = backbone.run_vision_block(layer, torch.cat([cls, patches], dim=1), cls.shape[1])
        x = torch.cat([cls.flatten(0, 1), patches.flatten(0, 1)])[None]
        for j in range(3):
            own = torch.cat([torch.arange(3).repeat_interleave(t.shape[1]) == j for t in (cls, patches)])
            close(backbone.run_vision_block(layer, x, 3 * cls.shape[1], own[None])[0, own], expected[j])


@pytest.mark.parametrize('kind', KINDS)
@torch.no_grad()
def test_frozen_towers_compute_the_same_in_training(kind):
    """No batch statistics, no dropped paths."""
    model, pixels = build(kind, text_prompts=[generic(2)]), frames(kind)
    expected = model.encode_frames(pixels)
    statistics = {name: value.clone() for name, value in model.backbone.named_buffers()}
    close(model.train().encode_frames(pixels), expected)
    assert all(torch.equal(value, statistics[name]) for name, value in model.backbone.named_buffers())


@pytest.mark.parametrize('kind', ['CoCa', 'PE-Core'])
def test_recomputed_activations_give_the_same_gradients(kind):
    out, parameters = [], []
    for recompute in (False, True):
        model = build(kind, text_prompts=[generic(2)], recompute=recompute, **METHODS['VoP-F'])
        out.append(torch.cat([model.encode_frames(frames(kind))[0], model.encode_text(captions(kind))]))
        parameters.append([*model.vision_tower.parameters(), *model.text_tower.parameters()])
    for mine, other in zip(*map(gradients, out, parameters), strict=True):
        close(mine, other)


# -- captions ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('layers', [None, (0, 1), (1, 3)], ids=str)
@pytest.mark.parametrize('kind', BLOCKS)
def test_captions_with_prompts(kind, layers):
    model = build(kind, text_prompts=[generic(3, layers=layers), generic(1)])
    tower, tokens = model.text_tower, captions(kind)
    prompts = {layer: torch.cat([p.weight[p.row(layer)] for p in tower.prompts if layer in p.layers])
               for layer in range(3)}
    room = KINDS[kind]['text_cfg']['context_length'] - 4
    assert tower.max_words == room
    expected = []
    for ids in tokens.tolist():
        if ids.index(end_of(KINDS[kind])) >= room:
            ids[room - 1] = end_of(KINDS[kind])
        expected.append(text_embedding(state_of(model), NUMBERS[kind][1], ids[:room], prompts))
    assert_same(model.encode_text(tokens), torch.stack(expected), list(tower.parameters()))


@pytest.mark.parametrize('prompts', [[], [generic(4)]], ids=['plain', 'prompts'])
@pytest.mark.parametrize('kind', BLOCKS)
@torch.no_grad()
def test_captions_are_cut_where_nothing_sees_the_rest(kind, prompts):
    model, tokens, text = build(kind, text_prompts=prompts), captions(kind, 5, 12), NUMBERS[kind][1]
    cut = model.backbone.cut_captions(tokens)
    assert cut.shape[1] == (12 if text.causal and text.read not in ('last', 'own') else tokens.shape[1])
    close(model.encode_text(cut), model.encode_text(tokens))
