"""The loss against loops in numpy."""
import numpy as np
import pytest
import torch

from vop_mm.models.losses import SymmetricContrastiveLoss

IDS = torch.tensor([4, 9, 4, 2, 9, 4, 7])


def logits_of(dtype=torch.float64, scale=5.):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(7, 7, generator=generator, dtype=torch.float64) * scale).to(dtype)


def by_hand(logits, ids, same_video):
    """Both directions, pair by pair."""
    logits, ids = logits.double().numpy(), ids.numpy()
    total = 0.
    for matrix in (logits, logits.T):
        for i, row in enumerate(matrix):
            own = [j for j in range(len(ids)) if ids[j] == ids[i]]
            rest = [j for j in range(len(ids)) if ids[j] != ids[i]]
            if same_video == 'mask':
                among, positives = rest + [i], [i]
            elif same_video == 'soft':
                among, positives = rest + own, own
            else:
                among, positives = rest + own, [i]
            denominator = np.log(sum(np.exp(row[j]) for j in among))
            total += -np.mean([row[j] - denominator for j in positives]) / len(ids) / 2
    return total


@pytest.mark.parametrize('same_video', ['mask', 'soft', 'negative'])
@pytest.mark.parametrize('ids', [IDS, torch.arange(7), torch.zeros(7, dtype=torch.int64)])
def test_equals_the_loops(same_video, ids):
    loss = SymmetricContrastiveLoss(same_video)(logits_of(), ids)
    assert loss.dtype == torch.float64
    np.testing.assert_allclose(loss.item(), by_hand(logits_of(), ids, same_video), rtol=1e-12, atol=1e-12)


def test_the_options_are_one_loss_where_all_videos_differ():
    losses = [SymmetricContrastiveLoss(o)(logits_of(), torch.arange(7)) for o in ('mask', 'soft', 'negative')]
    assert losses[0] == losses[2] and torch.isclose(losses[0], losses[1], rtol=1e-14)
    different = {round(SymmetricContrastiveLoss(o)(logits_of(), IDS).item(), 6) for o in ('mask', 'soft', 'negative')}
    assert len(different) == 3


def test_captions_of_a_video_leave_each_other_alone_by_default():
    logits = logits_of().requires_grad_()
    SymmetricContrastiveLoss()(logits, IDS).backward()
    same = IDS[:, None] == IDS[None]
    assert (logits.grad[same & ~torch.eye(7, dtype=torch.bool)] == 0).all()
    assert (logits.grad[~same] > 0).all() and (logits.grad.diagonal() < 0).all()


@pytest.mark.parametrize('same_video', ['mask', 'soft', 'negative'])
def test_gradients(same_video):
    loss = SymmetricContrastiveLoss(same_video)
    assert torch.autograd.gradcheck(lambda x: loss(x, IDS), logits_of(scale=1.).requires_grad_())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits = logits_of(dtype=dtype, scale=20.)
    loss = SymmetricContrastiveLoss()(logits, IDS)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), by_hand(logits, IDS, 'mask'), rtol=1e-6)


def test_large_logits_stay_finite():
    logits = torch.full((7, 7), -100.).fill_diagonal_(100.).requires_grad_()
    loss = SymmetricContrastiveLoss()(logits, IDS)
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(logits.grad).all()


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="'mask', 'soft' or 'negative', got 'ignore'"):
        SymmetricContrastiveLoss('ignore')
