"""Two real processes (gloo) against one with both batches: losses and gradients."""
import pytest
import torch
import torch.distributed as torch_dist
from torch.nn.parallel import DistributedDataParallel

from tests.clips import build_retriever, generic, random_frames, random_tokens
from tests.ranks import on_ranks
from vop_mm.models.retrievers import text_video_retriever
from vop_mm.utils.dist import gather_with_grad, world_size

WORLD = 2
# pairs of the global batch; the first half is rank 0's. Video 4 has captions on both ranks, video 6 two on one.
VIDEO_INDEX = [4, 7, 6, 6, 4, 9, 4, 2]
CASES = {f'{option} {name}': dict(option=option, dtype=dtype) for option in ('mask', 'soft', 'negative')
         for name, dtype in (('float32', torch.float32), ('float64', torch.float64))}


def build(option, dtype):
    return build_retriever(
        dtype=dtype, num_frames=2, frame_prompts=[generic(4)], text_prompts=[generic(4)],
        tuning=dict(type='PromptTuning', logit_scale=True),
        loss=dict(type='SymmetricContrastiveLoss', same_video=option)).train()


def batch(dtype, rows=slice(None)):
    pairs = len(VIDEO_INDEX)
    return dict(frames=random_frames(pairs, 2, dtype=dtype)[rows],
                tokens=random_tokens([5, 9, 30, 4, 12, 77, 8, 6])[rows],
                video_index=torch.tensor(VIDEO_INDEX)[rows], mode='loss')


def loss_and_gradients(model, data):
    loss = model(**data)['loss']
    loss.backward()
    return dict(loss=loss.detach(), **{n.removeprefix('module.'): p.grad.clone() for n, p in model.named_parameters()
                                       if p.requires_grad})


class _GatherOfPeers(torch.autograd.Function):
    """As in published code of this field: what comes back to a rank is its own part of its own gradient."""

    @staticmethod
    def forward(ctx, x):
        parts = [torch.empty_like(x) for _ in range(WORLD)]
        torch_dist.all_gather(parts, x)
        ctx.rows = slice(torch_dist.get_rank() * len(x), (torch_dist.get_rank() + 1) * len(x))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad):
        return grad[ctx.rows]


def run_rank():
    """One process: every case, for the test."""
    rank = torch_dist.get_rank()
    half = len(VIDEO_INDEX) // WORLD
    rows, found = slice(rank * half, (rank + 1) * half), {}
    for name, case in CASES.items():
        model = DistributedDataParallel(build(**case))
        found[name] = loss_and_gradients(model, batch(case['dtype'], rows))
    text_video_retriever.gather_with_grad = _GatherOfPeers.apply  # in this process, which ends with this function
    model = DistributedDataParallel(build('mask', torch.float64))
    found['peers'] = loss_and_gradients(model, batch(torch.float64, rows))
    x = (torch.arange(6.).view(3, 2) + 10 * rank).requires_grad_()
    weights = torch.arange(12.).view(6, 2) * (rank + 1)
    gathered = gather_with_grad(x)
    gathered.backward(weights)
    found['gathered'], found['grad'], found['world'] = gathered.detach(), x.grad, world_size()
    found['integers'] = gather_with_grad(torch.tensor([rank, 5]))
    found['transposed'] = gather_with_grad(torch.arange(6.).view(2, 3).T + rank)
    try:
        build('mask', torch.float32)(**dict(batch(torch.float32, rows), video_index=None))
    except ValueError as e:
        found['without index'] = str(e)
    return found


@pytest.fixture(scope='module')
def ranks():
    """What both processes found."""
    return on_ranks(run_rank, WORLD)


@pytest.mark.parametrize('name', CASES)
def test_two_processes_are_one_with_both_batches(ranks, name):
    case = CASES[name]
    expected = loss_and_gradients(build(**case), batch(case['dtype']))
    assert set(expected) == {'loss', 'vision_tower.prompts.0.weight', 'text_tower.prompts.0.weight',
                             'backbone.model.logit_scale'}
    tolerance = 1e-5 if case['dtype'] == torch.float32 else 1e-10
    for key, value in expected.items():
        assert value.norm() > 1e-3
        for rank in range(WORLD):
            torch.testing.assert_close(ranks[rank][name][key], value, rtol=0, atol=tolerance)


def test_the_gather_of_peers_gives_one_wth_of_the_prompts_gradients(ranks):
    expected = loss_and_gradients(build('mask', torch.float64), batch(torch.float64))
    found = ranks[0]['peers']
    torch.testing.assert_close(found['loss'], expected['loss'], rtol=0, atol=1e-10)
    for key in ('vision_tower.prompts.0.weight', 'text_tower.prompts.0.weight'):
        torch.testing.assert_close(found[key] * WORLD, expected[key], rtol=0, atol=1e-10)
    name = 'backbone.model.logit_scale'
    torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-10)


def test_gathering_itself(ranks):
    both = torch.cat([torch.arange(6.).view(3, 2), torch.arange(6.).view(3, 2) + 10])
    total = torch.arange(12.).view(6, 2) * 3  # both ranks' gradients, added
    for rank, found in enumerate(ranks):
        assert found['world'] == WORLD
        assert torch.equal(found['gathered'], both)
        assert torch.equal(found['grad'], total[3 * rank:3 * rank + 3])
        assert found['integers'].tolist() == [0, 5, 1, 5]
        part = torch.arange(6.).view(2, 3).T
        assert torch.equal(found['transposed'], torch.cat([part, part + 1]))


def test_without_knowing_the_videos_several_processes_refuse_to_train(ranks):
    assert all('video_index is needed' in found['without index'] for found in ranks)


def test_in_a_single_process_nothing_happens():
    x = torch.ones(2, 3)
    assert world_size() == 1 and gather_with_grad(x) is x
