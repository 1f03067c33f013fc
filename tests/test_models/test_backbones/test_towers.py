"""The towers with prompts, against a reference written out token by token."""
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.clips import EOT, SMALL, build_retriever, generic, random_frames, random_tokens
from tests.versions import needs
from vop_mm.models.backbones.text_tower import fit_tokens

from .reference import frame_embedding, text_embedding

VISION_HEADS, TEXT_HEADS = 2, 3
DOUBLE = dict(dtype=torch.float64, num_frames=3)


def by_layer(providers):
    """Layer -> tokens [P, C] of generic prompts, in the order that they stand in."""
    found = {}
    for provider in providers:
        for row, layer in enumerate(provider.layers):
            found.setdefault(layer, []).append(provider.weight[row])
    return {layer: torch.cat(tokens) for layer, tokens in found.items()}


def clip_state(model):
    return dict(model.backbone.model.named_parameters())


def close(a, b, atol):
    return torch.testing.assert_close(a, b, rtol=0, atol=atol)


def assert_same(ours, reference, parameters, atol=1e-12):
    """In value, and in the gradient of a random direction."""
    close(ours, reference, atol)
    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(5), dtype=ours.dtype)
    for mine, other in zip(*(torch.autograd.grad((out * direction).sum(), parameters) for out in (ours, reference))):
        assert other.abs().max() > 1e-4
        close(mine, other, 10 * atol)


# -- vision ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('prompts', [
    [generic(1)], [generic(8)], [generic(32)], [generic(4), generic(3)], [generic(4, layers=(0, 1))],
    [generic(4, layers=(1, 3))], [generic(4, layers=[(0, 1), (2, 3)])],
    [generic(2, layers=(1, 2)), generic(5, layers=(0, 2))],
], ids=str)
def test_frame_prompts_of_any_layers_and_length(prompts):
    model = build_retriever(frame_prompts=prompts, **DOUBLE)
    frames = random_frames(2, 3, dtype=torch.float64)
    layers = by_layer(model.vision_tower.prompts)
    reference = torch.stack([torch.stack([frame_embedding(clip_state(model), f, layers, VISION_HEADS) for f in video])
                             for video in frames])
    assert_same(model.encode_frames(frames), reference, list(model.vision_tower.parameters()))


def test_permuted_frames_permute_their_embeddings():
    model, frames = build_retriever(frame_prompts=[generic(4)], **DOUBLE), random_frames(2, 3, dtype=torch.float64)
    order = torch.tensor([2, 0, 1])
    close(model.encode_frames(frames[:, order]), model.encode_frames(frames)[:, order], 1e-12)
    close(model.encode_video(frames[:, order]), model.encode_video(frames), 1e-12)


def test_any_number_of_frames_gives_the_mean_of_their_embeddings():
    model = build_retriever(frame_prompts=[generic(4)], **DOUBLE)
    for count in (1, 2, 7):
        frames = random_frames(2, count, dtype=torch.float64)
        features = model.encode_frames(frames)
        close(features.norm(dim=-1), torch.ones(2, count, dtype=torch.float64), 1e-12)
        mean = features.sum(dim=1) / count
        close(model.encode_video(frames), mean / mean.norm(dim=-1, keepdim=True), 1e-12)


# -- text --------------------------------------------------------------------------------------------------------------
CAPTIONS = [3, 4, 20, 60, 77]  # tokens of them, start and end of text included; the longest must be cut


@pytest.mark.parametrize('past_eot', [False, True], ids=['at eot', 'published eot'])
@pytest.mark.parametrize(('prefix', 'suffix'), [
    ([], []), ([generic(1)], []), ([generic(8)], []), ([generic(32)], []), ([], [generic(4)]), ([], [generic(1)]),
    ([generic(4)], [generic(4)]), ([generic(2), generic(3)], [generic(1), generic(2)]),
    ([generic(4, layers=(1, 3))], []), ([generic(4, layers=(0, 1))], [generic(3, layers=(2, 4))]),
    ([generic(6, layers=[(0, 1), (3, 4)])], [generic(3, layers=(0, 2))]),
], ids=str)
def test_text_prompts_of_any_layers_and_length(prefix, suffix, past_eot):
    model = build_retriever(text_prompts=prefix, text_suffix_prompts=suffix, published_eot=past_eot, **DOUBLE)
    most = max(sum(p.num_tokens for p in [*model.text_tower.prompts, *model.text_tower.suffix_prompts]
                   if layer in p.layers) for layer in range(4))
    assert model.text_tower.max_words == 77 - most
    parameters = list(model.text_tower.parameters()) or [model.backbone.model.ln_final.weight.requires_grad_()]
    tokens = random_tokens(CAPTIONS)
    before, after = (by_layer(p) for p in (model.text_tower.prompts, model.text_tower.suffix_prompts))
    reference = []
    for ids, length in zip(tokens.tolist(), CAPTIONS):
        if length > 77 - most:
            ids[77 - most - 1] = EOT
        reference.append(text_embedding(clip_state(model), ids[:77 - most], before, after, TEXT_HEADS, past_eot))
    assert_same(model.encode_text(tokens), torch.stack(reference), parameters)


@pytest.mark.parametrize('suffix', [[], [generic(4)]], ids=['prefix', 'prefix and suffix'])
def test_columns_behind_the_last_end_of_text_change_nothing(suffix):
    model = build_retriever(text_prompts=[generic(8)], text_suffix_prompts=suffix, num_frames=3)
    tokens = random_tokens([5, 12, 9])
    close(model.encode_text(tokens[:, :12]), model.encode_text(tokens), 1e-6)


@pytest.mark.parametrize('length', [3, 8, 20, 69, 77])
def test_fitting_tokens_is_tokenising_to_that_length(length):
    import open_clip
    texts = ['a', 'a squid is talking to a crab', 'word ' * 75, 'one of exactly eight tokens, five', 'word ' * 200]
    longest = open_clip.get_tokenizer('ViT-B-32')(texts, context_length=77)
    fitted = fit_tokens(longest, longest.argmax(dim=1), length)
    assert torch.equal(fitted, open_clip.get_tokenizer('ViT-B-32')(texts, context_length=length))


def test_prompts_that_leave_no_room_for_words_are_refused():
    build_retriever(text_prompts=[generic(74)])
    with pytest.raises(ValueError, match='75 text prompts leave no room for words in 77 positions'):
        build_retriever(text_prompts=[generic(70)], text_suffix_prompts=[generic(5)])


# -- batches and padding -----------------------------------------------------------------------------------------------
def test_a_batch_is_as_one_by_one():
    model = build_retriever(frame_prompts=[generic(4)], text_prompts=[generic(4)], text_suffix_prompts=[generic(2)],
                            **DOUBLE)
    frames, tokens = random_frames(3, 3, dtype=torch.float64), random_tokens(CAPTIONS)
    close(model.encode_video(frames), torch.cat([model.encode_video(v[None]) for v in frames]), 1e-12)
    close(model.encode_text(tokens), torch.cat([model.encode_text(t[None]) for t in tokens]), 1e-12)


def test_masked_frames_are_as_if_they_were_not_there():
    model, frames = build_retriever(frame_prompts=[generic(4)], **DOUBLE), random_frames(2, 3, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected = torch.cat([model.encode_video(frames[:1, :2]), model.encode_video(frames[1:])])
    close(model.encode_video(frames, mask), expected, 1e-12)
    repeated = torch.cat([frames[:1, :2], frames[:1, 1:2]], dim=1)  # the other option: repeated frames count
    features = model.encode_frames(frames[:1, :2])[0]
    mean = (features[0] + 2 * features[1]) / 3
    close(model.encode_video(repeated)[0], mean / mean.norm(), 1e-12)


# -- how it is computed ------------------------------------------------------------------------------------------------
class Watch(TorchDispatchMode):
    """Collects the operators that run, and whatever has an attention matrix's shape."""

    def __init__(self, *tokens):
        super().__init__()
        self.tokens, self.names, self.matrices = tokens, [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.append(func.name())
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor) and value.shape[-2:] in self.tokens and (
                    value.numel() > value.shape[-1]**2):  # one alone is the causal mask itself
                self.matrices.append((func.name(), tuple(value.shape)))
        return out


FUSED = needs('torch', '2.5', 'no fused attention with a mask on a CPU')


@FUSED
def test_attention_is_fused_and_keeps_no_matrix(monkeypatch):
    calls = []
    fused = F.scaled_dot_product_attention

    def count(*args, **kwargs):
        calls.append(args[0].shape)
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', count)
    model = build_retriever(frame_prompts=[generic(5)], text_prompts=[generic(4)], num_frames=3).train()
    frames, tokens = random_frames(2, 3), random_tokens([20, 30])
    with Watch((10, 10), (34, 34)) as watch:
        model(frames, tokens[:, :30], mode='loss')['loss'].backward()
    # frames are a batch dimension: [B * F, heads, 1 + P + M, C / heads]
    assert calls == [(6, VISION_HEADS, 10, 32)] * 3 + [(2, TEXT_HEADS, 34, 32)] * 4
    assert not watch.matrices
    assert not [name for name in watch.names if 'softmax' in name and 'log_softmax' not in name]


@FUSED
def test_a_mask_over_a_video_is_a_row():
    """No matrix in memory where frames are padding: the mask of a video is one row of T numbers."""
    model = build_retriever(frame_prompts=[generic(4)], video_prompts=[generic(4)], video_from=1, num_frames=6).train()
    frames, mask = random_frames(2, 6), torch.arange(6)[None] < torch.tensor([6, 3])[:, None]
    tokens = 6 + 4 + 24
    with Watch((tokens, tokens)) as watch:
        model.encode_video(frames, mask).sum().backward()
    assert not watch.matrices
    assert any('scaled_dot_product' in name for name in watch.names)


def test_frames_are_normalized_and_prompts_are_made_once_for_the_batch():
    """The shared prompts of a layer are a view on the parameter until they join the frames' own tokens."""
    model = build_retriever(frame_prompts=[generic(5)], num_frames=3)
    seen = []

    class Spy(TorchDispatchMode):

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.name() == 'aten::cat' and len(args[0]) == 3 and args[0][1].shape[1] == 5:
                seen.append(args[0][1])
            return func(*args, **(kwargs or {}))

    with Spy():
        model.encode_frames(random_frames(4, 3))
    weight = model.vision_tower.prompts[0].weight
    assert [t.shape for t in seen] == [(12, 5, 64)] * 3 and all(t.stride(0) == 0 for t in seen)
    # layer 0's went through ln_pre, once; the others are the parameter's own memory
    assert [t.untyped_storage().nbytes() for t in seen[:1]] == [5 * 64 * 4]
    assert all(t.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr() for t in seen[1:])


def test_video_scope_outside_the_tower_is_refused():
    with pytest.raises(ValueError, match='video_from must be in 0..3'):
        build_retriever(video_from=4)


def test_small_clip_is_what_the_reference_assumes():
    assert SMALL['vision_cfg']['width'] // SMALL['vision_cfg']['head_width'] == VISION_HEADS
    assert SMALL['text_cfg']['heads'] == TEXT_HEADS
