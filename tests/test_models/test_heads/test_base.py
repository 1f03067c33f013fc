"""Heads of strangers: what they are given, what is made of what they say, and how they train."""
import pytest
import torch
import torch.distributed as torch_dist
from torch.nn import functional as F

from tests.clips import build_retriever, generic, random_frames, random_tokens
from tests.heads import one_by_one
from tests.ranks import on_ranks
from tests.test_models.test_tuning.test_strategies import train_a_step
from vop_mm.models.heads import MeanPoolSimilarity
from vop_mm.models.tuning import trainable_parameters, trainable_state_dict
from vop_mm.registry import HEADS

PARTS = dict(video_prompts=[generic(4)], text_prompts=[generic(4)], num_frames=3)
KINDS = ['MirrorSimilarity', 'FramesByText', 'WordsByFrames']
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.bool)


def build(kind, **kwargs):
    return build_retriever(head=dict(type=kind), **{**PARTS, **kwargs})


def batch(dtype=torch.float32):
    return random_frames(3, 3, dtype=dtype), random_tokens([5, 9, 30, 4])


def test_the_mirror_of_cosine():
    (frames, tokens), plain, mirror = batch(), build_retriever(**PARTS), build('MirrorSimilarity')
    cosines = plain.encode_text(tokens) @ plain.encode_video(frames, MASK).T
    assert torch.equal(plain.similarity(tokens, frames, MASK), cosines)
    torch.testing.assert_close(mirror.similarity(tokens, frames, MASK), -cosines, rtol=0, atol=1e-6)
    assert torch.equal(mirror.encode_video(frames, MASK), plain.encode_video(frames, MASK))


@pytest.mark.parametrize('masked', [False, True])
def test_text_that_looks_at_frames(masked):
    model, (frames, tokens) = build('FramesByText', dtype=torch.float64), batch(torch.float64)
    mask = MASK if masked else None
    raw_frames = model.vision_tower(model.backbone, frames, mask)
    raw_texts = model.text_tower(model.backbone, tokens)[0]
    assert not torch.allclose(raw_frames.norm(dim=-1), torch.ones(()).double(), atol=0.1)
    found = model.similarity(tokens, frames, mask)
    for t, text in enumerate(raw_texts):
        for v, video in enumerate(raw_frames):
            video = video[mask[v]] if masked else video
            weights = (model.head.key(video) @ model.head.query(text) / 48**0.5).softmax(0)
            torch.testing.assert_close(found[t, v], F.cosine_similarity(weights @ video, text, dim=0))
    torch.testing.assert_close(model.encode_frames(frames, mask), F.normalize(raw_frames, dim=-1))
    torch.testing.assert_close(model.encode_text(tokens), F.normalize(raw_texts, dim=-1))
    for v, video in enumerate(model.encode_frames(frames, mask)):  # found in an index by the mean of its real frames
        mean = (video[mask[v]] if masked else video).mean(0)
        torch.testing.assert_close(model.encode_video(frames, mask)[v], mean / mean.norm())


@pytest.mark.parametrize('suffix', [(), (generic(2),)])
def test_words_reach_the_head(suffix):
    model, (frames, tokens) = build('WordsByFrames', text_suffix_prompts=suffix), batch()
    sentence, words, mask = model.text_tower(model.backbone, tokens, words=True)
    length = model.text_tower.max_words
    assert words.shape == (4, length, 48) and mask.sum(1).tolist() == [5, 9, 30, 4]
    assert not words[~mask].any()
    ends = words[torch.arange(4), mask.sum(1) - 1]
    torch.testing.assert_close(ends, sentence)
    cut = model.text_tower(model.backbone, tokens[:1, :5], words=True)[1]  # padding or none, the same words
    torch.testing.assert_close(cut, words[:1], rtol=0, atol=1e-5)
    found = model.similarity(tokens, frames, MASK)
    videos = model.encode_frames(frames, MASK)
    for t in range(4):
        own = F.normalize(words[t][mask[t]], dim=-1)
        for v in range(3):
            expected = (own @ videos[v][MASK[v]].T).amax(1).mean()
            torch.testing.assert_close(found[t, v], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_loss_is_of_what_the_head_says(kind):
    model, (frames, tokens) = build(kind, dtype=torch.float64), batch(torch.float64)
    rows, videos = torch.tensor([0, 1, 1, 2]), torch.tensor([4, 2, 7])
    pairs = one_by_one(model.head, model.keep_text(tokens), model.keep_video(frames, MASK)[rows], MASK[rows])
    expected = model.loss_module(model.backbone.logit_scale.exp() * pairs, videos[rows])
    found = model(frames, tokens, rows, videos, MASK, mode='loss')['loss']
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('kind', KINDS)
def test_training_lowers_the_loss(kind):
    model, (frames, tokens) = build(kind), batch()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(6):
        loss = model(frames, tokens[:3], frame_mask=MASK, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1, losses


@pytest.mark.parametrize('tuning', ['PromptTuning', 'BiasTuning', 'ProjTuning', 'PartialTuning', 'FullTuning'])
def test_a_head_trains_with_every_method_and_is_saved(tuning):
    model = build('FramesByText', tuning=dict(type=tuning))
    names = {f'head.{layer}.{part}' for layer in ('query', 'key') for part in ('weight', 'bias')}
    assert names <= set(trainable_state_dict(model))
    before = train_a_step(model)
    assert (model.head.key.weight != before['head.key.weight']).any()


def test_a_head_does_not_train_where_nothing_does():
    assert not trainable_parameters(build('FramesByText', tuning=dict(type='ZeroShot')))


def test_another_similarity_is_no_cosine_until_it_says_so():
    assert MeanPoolSimilarity.is_cosine and not HEADS.get('MirrorSimilarity').is_cosine

    class OtherMean(MeanPoolSimilarity):

        def video(self, frames, frame_mask=None):
            return F.normalize(frames.amax(1), dim=-1)

    class Claims(MeanPoolSimilarity):
        is_cosine = True

        def similarity(self, text, video, frame_mask=None):
            return super().similarity(text, video)

    assert OtherMean.is_cosine and Claims.is_cosine


def test_what_is_no_head_is_refused():
    with pytest.raises(KeyError, match='SymmetricContrastiveLoss is not in the .*head registry'):
        build('SymmetricContrastiveLoss')


@pytest.mark.parametrize('kind', ['FramesByText', 'WordsByFrames'])
def test_two_processes_train_as_one(kind):
    """Padding is masked in the first one's batch alone."""
    def gradients(rows=slice(None)):
        model, (frames, tokens) = build(kind, dtype=torch.float64), batch(torch.float64)
        frames, mask = torch.cat([frames, frames[:1].flip(1)]), torch.cat([MASK.flip(0), MASK[:1]])[rows]
        model(frames[rows], tokens[rows], video_index=torch.arange(4)[rows],
              frame_mask=None if mask.all() else mask, mode='loss')['loss'].backward()
        return {name: p.grad for name, p in trainable_parameters(model).items()}

    def on_rank():
        return gradients(slice(0, 2) if torch_dist.get_rank() == 0 else slice(2, 4))

    whole, parts = gradients(), on_ranks(on_rank, 2)
    for name, value in whole.items():
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, value, rtol=1e-9, atol=1e-10)
