"""What flags and options of training compute, against the same run without them."""
import pytest
import torch
from mmengine.optim import build_optim_wrapper

from tests.methods import batch, build
from tests.test_tools.test_train import TRAIN, options, scalars
from tests.tools import run_tool
from vop_mm.models.tuning import trainable_parameters


def losses(work_dir, data, *flags, **changes):
    done = run_tool('tools/train.py', TRAIN, '--work-dir', work_dir, *flags,
                    *options(data, **{'train_cfg.max_epochs': 1, 'randomness.deterministic': True, **changes}))
    assert done.returncode == 0, done.stderr
    return torch.tensor([line['loss'] for line in scalars(work_dir)], dtype=torch.float64)


@pytest.fixture(scope='module')
def plain(small_demo, tmp_path_factory):
    return losses(tmp_path_factory.mktemp('plain'), small_demo)


@pytest.mark.parametrize('dtype', ['bfloat16', pytest.param('float16', marks=[pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason='float16 is trained on a GPU')])])
def test_mixed_precision_rounds_and_no_more(plain, small_demo, tmp_path, dtype):
    found = losses(tmp_path, small_demo, '--amp', '--amp-dtype', dtype)
    torch.testing.assert_close(found, plain, rtol=0.02, atol=0.02)
    # the first step's loss, before anything could drift apart, shows that numbers were rounded
    assert abs(found[0] - plain[0]) > 1e-5
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert all(tensor.dtype == torch.float32 for tensor in saved['state_dict'].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_float16_without_a_gpu_is_refused(small_demo, tmp_path):
    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path, '--amp', '--amp-dtype', 'float16',
                    *options(small_demo))
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'error: ' in done.stderr and 'float16 requires a GPU' in done.stderr


@pytest.mark.parametrize('change', [{'model.recompute': True}, {'model.backbone.compile': '{"backend": "aot_eager"}'}],
                         ids=['recompute', 'compile'])
def test_recomputation_and_compilation_change_nothing(plain, small_demo, tmp_path, change):
    torch.testing.assert_close(losses(tmp_path, small_demo, **change), plain, rtol=0, atol=1e-4)


def test_accumulated_steps_are_averaged():
    """Five batches in twos: an update by the mean of two gradients, and the last by one gradient as it is."""
    alone = build('vop')
    wrapper = build_optim_wrapper(alone, dict(
        type='OptimWrapper', constructor='TrainableOptimWrapperConstructor', accumulative_counts=2,
        optimizer=dict(type='SGD', lr=0.5)))
    wrapper.initialize_count_status(alone, 0, 5)
    expected = build('vop')  # steps of its own, written out
    for batches in ((0, 1), (2, 3), (4,)):
        for seed in batches:
            frames, tokens = batch(seed=seed)
            with wrapper.optim_context(alone):
                wrapper.update_params(alone(frames, tokens, mode='loss')['loss'])
            expected(frames, tokens, mode='loss')['loss'].backward()
        for parameter in trainable_parameters(expected).values():
            parameter.data -= 0.5 * parameter.grad / len(batches)
            parameter.grad = None
        for name, parameter in trainable_parameters(expected).items():
            torch.testing.assert_close(trainable_parameters(alone)[name], parameter, rtol=0, atol=1e-14)
