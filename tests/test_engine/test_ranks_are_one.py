"""Training steps of W processes (gloo) against one process with the global batch: losses, gradients, parameters."""
import pytest
import torch
import torch.distributed as torch_dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from torch import nn

from tests.methods import batch, build
from tests.ranks import on_ranks
from vop_mm.models.tuning import trainable_parameters

METHODS = ('vop', 'vop_c', 'vop_f', 'full')
DTYPES = {'float32': torch.float32, 'float64': torch.float64}
# of the global batch, in rank order: captions of one video are on different ranks (2, 5) and on one (3)
VIDEO_INDEX = [2, 5, 3, 3, 2, 9, 5, 2]
STEPS, ACCUMULATED, MAX_NORM = 5, 2, 0.05  # the last step of an epoch is accumulated alone


class _AsItIs(nn.Module):
    """In place of the preprocessor, which makes float32."""

    def forward(self, data, training=False):
        return data


def train(method, dtype):
    """Two epochs on this rank's share; what was logged at each step, and the clipped gradients of each update."""
    world = torch_dist.get_world_size() if torch_dist.is_initialized() else 1
    rank = torch_dist.get_rank() if world > 1 else 0
    each = len(VIDEO_INDEX) // world
    rows = slice(rank * each, (rank + 1) * each)
    retriever = build(method, dtype=dtype).train()
    retriever.data_preprocessor = _AsItIs()
    model = MMDistributedDataParallel(retriever, broadcast_buffers=False) if world > 1 else retriever
    # float32 differs by rounding alone, which Adam would blow up where a gradient is next to nothing
    optimizer = dict(type='AdamW', lr=1e-2) if dtype == torch.float64 else dict(type='SGD', lr=0.1, momentum=0.9)
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='TrainableOptimWrapperConstructor', optimizer=optimizer,
        accumulative_counts=ACCUMULATED, clip_grad=dict(max_norm=MAX_NORM)))
    names, gradients, losses = list(trainable_parameters(retriever)), [], []
    wrapper.optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: gradients.append(
        {name: p.grad.clone() for name, p in trainable_parameters(retriever).items()}))
    for epoch in range(2):
        wrapper.initialize_count_status(model, 0, STEPS)
        for step in range(STEPS):
            frames, tokens = batch(len(VIDEO_INDEX), dtype=dtype, seed=10 * epoch + step)
            logged = model.train_step(dict(frames=frames[rows], tokens=tokens[rows],
                                           video_index=torch.tensor(VIDEO_INDEX)[rows]), wrapper)
            losses.append(logged['loss'].detach())
    return dict(names=names, losses=torch.stack(losses), gradients=gradients,
                parameters={n: p.detach().clone() for n, p in trainable_parameters(retriever).items()})


def train_all():
    return {f'{method} {name}': train(method, dtype) for method in METHODS for name, dtype in DTYPES.items()}


@pytest.fixture(scope='module', params=[2, 4])
def ranks(request):
    return on_ranks(train_all, request.param)


@pytest.fixture(scope='module')
def one():
    return train_all()


@pytest.mark.parametrize('name', DTYPES)
@pytest.mark.parametrize('method', METHODS)
def test_equal_one_process(ranks, one, method, name):
    expected, tolerance = one[f'{method} {name}'], dict(rtol=0, atol=1e-10 if name == 'float64' else 1e-5)
    assert len(expected['gradients']) == 2 * 3 and len(expected['losses']) == 2 * STEPS
    for gradients in expected['gradients']:  # clipping was at work
        assert torch.cat([g.flatten() for g in gradients.values()]).norm() == pytest.approx(MAX_NORM, rel=1e-3)
    for rank in ranks:
        found = rank[f'{method} {name}']
        assert found['names'] == expected['names']
        torch.testing.assert_close(found['losses'], expected['losses'], **tolerance)
        for a, b in zip(found['gradients'], expected['gradients'], strict=True):
            torch.testing.assert_close(a, b, **tolerance)
        torch.testing.assert_close(found['parameters'], expected['parameters'], **tolerance)


def test_parameters_moved(one):
    for method in METHODS:
        start = trainable_parameters(build(method))
        moved = one[f'{method} float64']['parameters']
        assert all((moved[n] - p).abs().max() > 1e-4 for n, p in start.items() if not n.endswith('in_proj_bias'))
