"""A training loop doesn't wait for the device but when it logs: counted in real runs, and shown where it can't be."""
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper

from tests.device_reads import DeviceReads
from tests.methods import FRAMES, METHODS, build
from tests.ranks import on_ranks
from tests.test_tools.test_train import TRAIN, options, scalars
from tests.tools import run_tool
from vop_mm.engine.hooks import BufferedRuntimeInfoHook
from vop_mm.registry import HOOKS
from vop_mm.structures import VideoTextDataSample

STEPS, INTERVAL = 12, 5
# everything that has values of its own: an average, a norm, accumulated gradients
CHANGES = {'train_dataloader.batch_size': 4, 'train_cfg.max_epochs': 1, 'default_hooks.logger.interval': INTERVAL,
           'optim_wrapper.accumulative_counts': 2, 'optim_wrapper.clip_grad.max_norm': 1., 'param_scheduler.0.T_max': 2,
           'randomness.deterministic': True}
HOOKS_OF_A_RUN = [dict(type='SetEpochHook'), dict(type='UnreadableVideoHook'), dict(type='TrainableEMAHook')]


@HOOKS.register_module(force=True)
class CountReads(Hook):
    """Leaves how many reads every training step took, all hooks included, and every batch of a validation."""
    priority = 'LOWEST'

    def __init__(self, file):
        self.file, self.counts = file, dict(train=[], val=[])

    def before_train(self, runner):
        self.reads = DeviceReads(runner.model)
        self.reads.__enter__()

    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
        self.before = self.reads.count

    def _after_iter(self, runner, batch_idx, data_batch=None, outputs=None, mode='train'):
        self.counts[mode].append(self.reads.count - self.before)

    def after_train(self, runner):
        self.reads.__exit__(None, None, None)
        Path(self.file).write_text(json.dumps(self.counts))


def with_this_module():
    """In the tool's process: what is registered above is known there."""


def train(work_dir, data, **changes):
    """Reads of every step and batch; log lines; the checkpoint's histories."""
    hooks = [*HOOKS_OF_A_RUN, dict(type='CountReads', file=str(work_dir / 'reads.json'))]
    changes = {**CHANGES, 'custom_hooks': json.dumps(hooks), **changes}
    done = run_tool('tools/train.py', TRAIN, '--work-dir', work_dir, *options(data, **changes), before=with_this_module)
    assert done.returncode == 0, done.stderr
    history = torch.load(work_dir / 'epoch_1.pth', weights_only=True)['message_hub']['log_scalars']
    return (json.loads((work_dir / 'reads.json').read_text()),
            [{k: v for k, v in line.items() if 'time' not in k} for line in scalars(work_dir)],
            {name: values for name, values in history.items() if 'time' not in name})


@pytest.fixture(scope='module')
def buffered(small_demo, tmp_path_factory):
    return train(tmp_path_factory.mktemp('buffered'), small_demo)


def test_between_two_logs_no_step_reads_the_device(buffered):
    reads, lines, _ = buffered
    logged = [(i + 1) % INTERVAL == 0 for i in range(STEPS)]
    assert len(lines) == sum(logged) == 2
    assert reads['train'] == [1 if at_log else 0 for at_log in logged]


def test_what_is_logged_and_saved_is_what_mmengines_own_hook_keeps(buffered, small_demo, tmp_path):
    reads, lines, history = train(tmp_path, small_demo, **{'default_hooks.runtime_info.type': 'RuntimeInfoHook'})
    assert all(count >= 1 for count in reads['train'])  # it waits at every step
    assert lines == buffered[1] and history == buffered[2]
    assert set(history) == {'train/lr', 'train/loss', 'train/grad_norm'}
    assert [len(history[name]['values']) for name in ('train/loss', 'train/grad_norm')] == [STEPS, STEPS // 2]


def test_a_log_of_every_step_costs_one_read_each(small_demo, tmp_path):
    reads, lines, _ = train(tmp_path, small_demo, **{'default_hooks.logger.interval': 1})
    assert reads['train'] == [1] * STEPS and len(lines) == STEPS


def test_a_loss_that_is_not_a_number_between_two_logs_is_found_before_anything_is_saved(small_demo, tmp_path):
    """The learning rate explodes with the second epoch, whose one log line would come with its last step."""
    explode = {'param_scheduler': '[{"type": "StepLR", "step_size": 1, "gamma": 1e30}]',
               'default_hooks.logger.interval': 50, 'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1}
    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path, *options(small_demo, **explode))
    assert done.returncode == 1
    assert 'the loss is nan at step 2 of epoch 2: the last checkpoint, ' in done.stderr.splitlines()[-2]
    assert sorted(p.name.split('_')[0] for p in tmp_path.glob('*.pth')) == ['best', 'epoch']
    for path in tmp_path.glob('*.pth'):
        assert torch.load(path, weights_only=True)['meta']['epoch'] == 1


def test_features_of_a_batch_come_back_together(buffered):
    assert buffered[0]['val'] == [3]  # 12 videos in one batch: those of videos, of texts, and whose these are


# -- one step ----------------------------------------------------------------------------------------------------------
def collated(videos=4):
    """A batch as the data loader gives it; a video is shorter than the others, and two are the same."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(0, 256, (FRAMES, 3, 16, 16), generator=generator, dtype=torch.uint8)
              for _ in range(videos)]
    tokens = torch.randint(1, 58, (videos, 9), generator=generator)
    tokens[:, 5], tokens[:, 6:] = 59, 0
    samples = []
    for i in range(videos):
        sample = VideoTextDataSample(metainfo=dict(video_index=i // 2, num_frames=FRAMES - 2 * (i == 1)))
        sample.tokens = tokens[i:i + 1]
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def optimizer(model):
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='TrainableOptimWrapperConstructor', optimizer=dict(type='AdamW', lr=1e-3),
        clip_grad=dict(max_norm=1.)))
    wrapper.initialize_count_status(model, 0, 100)
    hook = BufferedRuntimeInfoHook()
    hook.buffer_norms(wrapper)
    return wrapper, hook


@pytest.mark.parametrize('short_videos', ['repeat', 'mask'])
@pytest.mark.parametrize('method', sorted(set(METHODS) - {'zero_shot'}))
def test_a_step_of_any_method_needs_no_value_of_the_device(method, short_videos):
    """On the meta device there are no values: whoever asks for one gets an error."""
    model = build(method, dtype=torch.float32,
                  data_preprocessor=dict(type='VideoTextPreprocessor', short_videos=short_videos)).train().to('meta')
    wrapper, hook = optimizer(model)
    run = SimpleNamespace(hooks=[], epoch=0)
    for i in range(2):
        hook.after_train_iter(run, i, outputs=model.train_step(collated(), wrapper))
    with pytest.raises(NotImplementedError):
        hook.flush(run)


def test_the_meta_device_would_show_it():
    model = build('vop', dtype=torch.float32).to('meta')
    for read in (lambda x: x.item(), lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x[x > 0], torch.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(next(model.parameters()).flatten()[0:1])


def reads_of_ranks():
    retriever = build('vop_f_c', dtype=torch.float32).train()
    model = MMDistributedDataParallel(retriever, broadcast_buffers=False)
    wrapper, _ = optimizer(model)
    with DeviceReads(model) as reads:
        for _ in range(2):
            model.train_step(collated(), wrapper)
    return dict(reads=dict(reads.where))


def test_nor_does_a_step_of_several_processes():
    assert [rank['reads'] for rank in on_ranks(reads_of_ranks, 2)] == [{}, {}]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
@pytest.mark.parametrize('method', sorted(set(METHODS) - {'zero_shot'}))
def test_nothing_waits_for_a_real_gpu(method):
    """CUDA itself says when it has to wait."""
    model = build(method, dtype=torch.float32).train().cuda()
    wrapper, _ = optimizer(model)
    model.train_step(collated(), wrapper)
    try:
        torch.cuda.set_sync_debug_mode('error')
        model.train_step(collated(), wrapper)
    finally:
        torch.cuda.set_sync_debug_mode('default')
