"""The loss against loops in numpy and open_clip's, in one process and in several (gloo)."""
import math

import numpy as np
import pytest
import torch
import torch.distributed as torch_dist
from open_clip.loss import SigLipLoss
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tests.clips import SMALL, build_retriever, generic, random_frames, random_tokens
from tests.ranks import on_ranks
from vop_mm.models.losses import SigmoidLoss
from vop_mm.registry import MODELS

IDS = torch.tensor([4, 9, 4, 2, 9, 4, 7])
OPTIONS = ('mask', 'soft', 'negative')


def logits_of(dtype=torch.float64, scale=5.):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(7, 7, generator=generator, dtype=torch.float64) * scale).to(dtype)


def by_hand(logits, ids, same_video, bias=0.):
    """Text by text, video by video."""
    logits, ids = logits.double().numpy() + bias, ids.numpy()
    total = 0.
    for i in range(len(ids)):
        for j in range(len(ids)):
            if i == j or (ids[i] == ids[j] and same_video == 'soft'):
                total -= np.log(1 / (1 + np.exp(-logits[i, j])))
            elif ids[i] != ids[j] or same_video == 'negative':
                total -= np.log(1 / (1 + np.exp(logits[i, j])))
    return total / len(ids)


# -- the loss alone ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('bias', [None, -3.])
@pytest.mark.parametrize('same_video', OPTIONS)
@pytest.mark.parametrize('ids', [IDS, torch.arange(7), torch.zeros(7, dtype=torch.int64)])
def test_equals_the_loops(same_video, ids, bias):
    loss = SigmoidLoss(same_video, bias).double()(logits_of(), ids)
    assert loss.dtype == torch.float64 and loss.shape == ()
    np.testing.assert_allclose(loss.item(), by_hand(logits_of(), ids, same_video, bias or 0.), rtol=1e-12)


@pytest.mark.parametrize('shape', [(), (1, )])
@pytest.mark.parametrize('same_video', OPTIONS)
def test_equals_open_clips_where_all_videos_differ(same_video, shape):
    generator = torch.Generator().manual_seed(3)
    features = [F.normalize(torch.randn(7, 16, generator=generator, dtype=torch.float64), dim=-1) for _ in range(2)]
    results = []
    for ours in (True, False):
        videos, texts, log, bias = inputs = [x.clone().requires_grad_() for x in (
            *features, torch.full(shape, math.log(117.), dtype=torch.float64),
            torch.full(shape, -16.5, dtype=torch.float64))]
        if ours:
            loss = SigmoidLoss(same_video)(log.exp() * texts @ videos.T + bias, torch.arange(7))
        else:
            loss = SigLipLoss()(videos, texts, log.exp(), bias)
        results.append((loss, *torch.autograd.grad(loss, inputs)))
    for found, expected in zip(*results, strict=True):
        assert expected.norm() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_captions_of_a_video_leave_each_other_alone_by_default():
    logits = logits_of().requires_grad_()
    SigmoidLoss()(logits, IDS).backward()
    same = IDS[:, None] == IDS[None]
    assert (logits.grad[same & ~torch.eye(7, dtype=torch.bool)] == 0).all()
    assert (logits.grad[~same] > 0).all() and (logits.grad.diagonal() < 0).all()
    assert len({round(SigmoidLoss(option)(logits_of(), IDS).item(), 6) for option in OPTIONS}) == 3


@pytest.mark.parametrize('same_video', OPTIONS)
def test_gradients(same_video):
    loss = SigmoidLoss(same_video, bias=-2.).double()

    def of_logits_and_bias(logits, bias):
        return torch.func.functional_call(loss, dict(bias=bias), (logits, IDS))

    assert torch.autograd.gradcheck(of_logits_and_bias, (logits_of(scale=1.).requires_grad_(), loss.bias))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits = logits_of(dtype=dtype, scale=20.)
    loss = SigmoidLoss(bias=-3.)(logits, IDS)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), by_hand(logits, IDS, 'mask', -3.), rtol=1e-6)


def test_large_logits_stay_finite():
    logits = torch.full((7, 7), -1000.).fill_diagonal_(1000.).requires_grad_()
    assert SigmoidLoss('negative')(logits, IDS).item() == 0
    loss = SigmoidLoss('negative')(-logits, IDS)
    loss.backward()
    assert loss.item() == 7 * 1000 and torch.isfinite(logits.grad).all()


def test_the_bias_is_a_trainable_scalar_if_asked_for():
    assert not list(SigmoidLoss().parameters())
    loss = MODELS.build(dict(type='SigmoidLoss', bias=-10))
    (name, bias), = loss.named_parameters()
    assert name == 'bias' and bias.shape == () and bias.item() == -10 and bias.dtype == torch.float32


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="'mask', 'soft' or 'negative', got 'ignore'"):
        SigmoidLoss('ignore')


# -- in several processes ----------------------------------------------------------------------------------------------
# pairs of the global batch, in rank order: captions of one video are on all ranks (4) and on one (6)
VIDEO_INDEX = [4, 7, 6, 6, 4, 9, 9, 2, 3, 1, 4, 5]
CASES = [(backbone, option) for backbone in ('CLIP', 'SigLIP') for option in OPTIONS]
WITH_BIAS = dict(SMALL, init_logit_scale=math.log(117.), init_logit_bias=-16.5, nonscalar_logit_scale=True)


def build(backbone, option):
    loss = dict(type='SigmoidLoss', same_video=option, **(dict(bias=-10.) if backbone == 'CLIP' else {}))
    return build_retriever(
        arch=SMALL if backbone == 'CLIP' else WITH_BIAS, dtype=torch.float64, num_frames=2, loss=loss,
        frame_prompts=[generic(4)], text_prompts=[generic(4)],
        tuning=dict(type='PromptTuning', logit_scale=True)).train()


def loss_and_gradients(model, rows=slice(None)):
    pairs = len(VIDEO_INDEX)
    frames = random_frames(pairs, 2, dtype=torch.float64)[rows]
    tokens = random_tokens([5, 9, 30, 4, 12, 77, 8, 6, 3, 40, 7, 9])[rows]
    loss = model(frames=frames, tokens=tokens, video_index=torch.tensor(VIDEO_INDEX)[rows], mode='loss')['loss']
    loss.backward()
    return dict(loss=loss.detach(), **{name.removeprefix('module.'): p.grad.clone()
                                       for name, p in model.named_parameters() if p.requires_grad})


def run_rank():
    each = len(VIDEO_INDEX) // torch_dist.get_world_size()
    rows = slice(torch_dist.get_rank() * each, (torch_dist.get_rank() + 1) * each)
    return {str(case): loss_and_gradients(DistributedDataParallel(build(*case)), rows) for case in CASES}


@pytest.fixture(scope='module', params=[2, 3])
def ranks(request):
    """Loss and gradients of every case on every rank."""
    return on_ranks(run_rank, request.param)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_several_processes_are_one_with_all_batches(ranks, case):
    expected = loss_and_gradients(build(*case))
    bias = 'loss_module.bias' if case[0] == 'CLIP' else 'backbone.model.logit_bias'
    assert set(expected) == {'loss', 'vision_tower.prompts.0.weight', 'text_tower.prompts.0.weight',
                             'backbone.model.logit_scale', bias}
    for found in (rank[str(case)] for rank in ranks):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert value.norm() > 1e-3
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10)
