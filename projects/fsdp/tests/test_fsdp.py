"""Sharded training (FSDP) in two real processes, against one that holds everything."""
import json
import math
import os
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import FlexibleRunner
from torch.distributed.fsdp import FullyShardedDataParallel

from projects.fsdp.fsdp import FlexibleRetrievalRunner, RetrievalFSDPStrategy
from tests.ranks import on_ranks
from tests.test_config.test_keys import DEMO
from tests.test_engine.test_runner import log_of
from tests.test_engine.test_safe_loading import assert_is_safe
from tests.test_models.test_methods import batch, build
from tests.test_tools.test_train import options, scalars
from tests.tools import run_ranks, run_tool
from tests.versions import needs
from vop_mm.config import read_config
from vop_mm.models.tuning import trainable_parameters
from vop_mm.registry import MODELS, RUNNERS, STRATEGIES

pytestmark = needs('torch', '2.4', 'FSDP without CUDA can\'t gather the optimizer\'s state')

PROJECT = Path(__file__).resolve().parents[1]
CONFIG = 'projects/fsdp/configs/full_mini_clip_fsdp_demo.py'
EPOCHS, PAIRS, MAX_NORM = 2, 16, 5.
# Adam, for it keeps two states of a parameter; its eps so large that a gradient of rounding moves nothing
CHANGES = {'train_cfg.max_epochs': EPOCHS, 'train_cfg.val_interval': 1, 'param_scheduler.0.T_max': EPOCHS,
           'optim_wrapper.optimizer': '{"type": "AdamW", "lr": 0.1, "eps": 1., "_delete_": True}',
           'optim_wrapper.accumulative_counts': 2, 'optim_wrapper.clip_grad': {'max_norm': MAX_NORM}}


def run(tool, data, *arguments, processes=1, **changes):
    changes = options(data, **{**CHANGES, 'train_dataloader.batch_size': PAIRS // processes, **changes})
    if processes == 1:
        return run_tool(tool, CONFIG, *arguments, *changes)
    return run_ranks(tool, CONFIG, *arguments, '--launcher', 'pytorch', *changes, processes=processes)


def read(work_dir, epoch):
    return torch.load(work_dir / f'epoch_{epoch}.pth', weights_only=True)


@pytest.fixture(scope='module')
def trained(small_demo, tmp_path_factory):
    """Work directories of undisturbed runs, by their number of processes."""
    folders = {}
    for processes in (1, 2):
        folders[processes] = tmp_path_factory.mktemp(f'trained_{processes}')
        done = run('tools/train.py', small_demo, '--work-dir', folders[processes], processes=processes)
        assert done.returncode == 0, done.stderr
    return folders


def test_trains_as_one_process_does(trained):
    one, two = (scalars(trained[processes]) for processes in (1, 2))
    assert len(one) == len(two) == EPOCHS * 3  # 48 pairs
    for key in ('loss', 'lr', 'grad_norm'):
        found, expected = ([line[key] for line in lines if key in line] for lines in (two, one))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert max(line['grad_norm'] for line in two if 'grad_norm' in line) > 2 * MAX_NORM  # clipping was at work
    start, expected, found = (torch.load(path, weights_only=True)['state_dict'] for path in (
        trained[1] / 'epoch_1.pth', trained[1] / f'epoch_{EPOCHS}.pth', trained[2] / f'epoch_{EPOCHS}.pth'))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert max((expected[name] - start[name]).abs().max() for name in expected) > 1e-3


def test_its_log_says_how_large_a_step_is(trained):
    for processes, work_dir in trained.items():
        log = log_of(work_dir)
        assert log.count('Full: 294,913 of 294,913') == 1 and f'processes: {processes}' in log
        assert f'Global batch 32: {processes} processes with {PAIRS // processes} pairs, 2 steps accumulated' in log
        assert 'effective learning rate 0.1\n' in log
        assert f'{EPOCHS} caption-epochs over 48 pairs of video and caption, 2 updates in each' in log


def test_writes_the_checkpoint_of_one_process(trained):
    one, two = (read(trained[processes], EPOCHS) for processes in (1, 2))
    assert one.keys() == two.keys() and list(one['state_dict']) == list(two['state_dict'])
    assert two['meta'].keys() == one['meta'].keys() and two['meta']['vop_mm'] == one['meta']['vop_mm']
    assert two['param_schedulers'] == one['param_schedulers']
    assert two['message_hub']['log_scalars'].keys() == one['message_hub']['log_scalars'].keys()
    for state in (one['optimizer']['state'], two['optimizer']['state']):
        assert len(state) == len(one['state_dict']) and set(state[0]) == {'step', 'exp_avg', 'exp_avg_sq'}
    torch.testing.assert_close(two['optimizer'], one['optimizer'], rtol=1e-4, atol=1e-7)
    best, = trained[2].glob('best_t2v_R1_*.pth')
    assert set(torch.load(best, weights_only=True)) == {'meta', 'state_dict'}


def test_is_evaluated_by_any_number_of_processes(trained, small_demo, tmp_path):
    for processes in (1, 2):
        done = run('tools/test.py', small_demo, trained[2] / f'epoch_{EPOCHS}.pth', '--work-dir', tmp_path, '--json',
                   tmp_path / f'{processes}.json', processes=processes)
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f'{processes}.json').read_text()) for processes in (1, 2))
    assert one == two and one['num_videos'] == 13


@pytest.mark.parametrize(('wrote', 'goes_on'), [(2, 2), (2, 1), (1, 2)])
def test_is_resumed_by_any_number_of_processes(trained, small_demo, tmp_path, wrote, goes_on):
    start = read(trained[wrote], 1)
    start['meta']['config'] = f'x = __import__("os").system("touch {tmp_path}/it_ran")'  # MMEngine would run it
    torch.save(start, tmp_path / 'start.pth')
    done = run('tools/train.py', small_demo, '--work-dir', tmp_path, '--resume', tmp_path / 'start.pth',
               processes=goes_on)
    assert done.returncode == 0 and not (tmp_path / 'it_ran').exists(), done.stderr
    assert 'resumed epoch: 1' in done.stdout + done.stderr
    expected, found = read(trained[goes_on], EPOCHS), read(tmp_path, EPOCHS)
    # torch 2.14 gives the same bits where the number of processes stays the same, torch 2.4 not always
    torch.testing.assert_close(found['state_dict'], expected['state_dict'], rtol=0, atol=1e-5)
    torch.testing.assert_close(found['optimizer'], expected['optimizer'], rtol=1e-4, atol=1e-7)


def test_what_does_not_go_together_is_refused(trained, small_demo, tmp_path):
    for says, changes in (
            ("TrainableEMAHook doesn't work with FSDP",
             dict(custom_hooks='[{"type": "SetEpochHook"}, {"type": "TrainableEMAHook"}]')),
            ("'resblocks.0.attn' of paramwise_cfg reaches into a block",
             {'optim_wrapper.paramwise_cfg': '{"custom_keys": {"resblocks.0.attn": {"lr_mult": 0.1}}}'})):
        done = run('tools/train.py', small_demo, '--work-dir', tmp_path, processes=2, **changes)
        assert done.returncode == 1 and says in done.stderr
    best, = trained[2].glob('best_*.pth')
    done = run('tools/train.py', small_demo, '--work-dir', tmp_path, '--resume', best)
    assert done.returncode == 1 and 'resume from an epoch_N.pth' in done.stderr
    with pytest.raises(ValueError, match=r'tools/dist_train\.sh'):
        RetrievalFSDPStrategy(work_dir=str(tmp_path), env_kwargs=dict(launcher='none'))


def test_a_head_is_what_evaluation_scores_by(trained, small_demo, tmp_path):
    found = {}
    for head in ('MeanPoolSimilarity', 'MirrorSimilarity', 'FramesByText'):
        done = run('tools/test.py', small_demo, trained[2] / 'epoch_2.pth', '--work-dir', tmp_path / head, '--json',
                   tmp_path / f'{head}.json', processes=2, **{
                       'model.head.type': head, 'custom_imports.imports': ['projects.fsdp.fsdp', 'tests.heads']})
        if head == 'FramesByText':
            assert done.returncode and 'the head FramesByText has weights of its own' in done.stderr
        else:
            assert done.returncode == 0, done.stderr
            found[head] = json.loads((tmp_path / f'{head}.json').read_text())
    assert found['MeanPoolSimilarity']['t2v/MnR'] + found['MirrorSimilarity']['t2v/MnR'] == pytest.approx(14)


@pytest.mark.parametrize(('name', 'millions'), [('vit_l_14', 427.6), ('vit_bigg_14', 2539.6)])
def test_large_clip_is_trained_whole_in_shards(name, millions):
    cfg = Config.fromfile(PROJECT / 'configs' / f'full_{name}_fsdp_msrvtt.py')
    arch, tag = cfg.model.backbone.arch, cfg.model.backbone.pop('weights')
    with torch.device('meta'):
        theirs = open_clip.CLIP(**open_clip.get_model_config(arch))
    sizes = {name: p.shape for name, p in theirs.named_parameters()}
    assert round(sum(map(math.prod, sizes.values())) / 1e6, 1) == millions
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert {name.removeprefix('backbone.model.'): p.shape for name, p in trainable_parameters(model).items()} == sizes
    pretrained = open_clip.get_pretrained_cfg(arch, tag)
    if not pretrained:
        pytest.skip(f'this open_clip has no {tag} weights for {arch}')
    if 'quick_gelu' in open_clip.get_pretrained_cfg('ViT-B-32', 'openai'):  # older versions don't say
        assert pretrained.get('quick_gelu', False) == any(isinstance(m, open_clip.transformer.QuickGELU)
                                                          for m in theirs.modules())
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    assert (preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()) == (
        pytest.approx(pretrained['mean']), pytest.approx(pretrained['std']))
    assert model.vision_tower.recompute and model.text_tower.recompute
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    assert RUNNERS.get(cfg.runner_type) and STRATEGIES.get(cfg.strategy.type)


@pytest.mark.parametrize('options', [
    ['custom_imports.imports=[projects.fsdp.fsdp]', 'runner_type=FlexibleRetrievalRunner',
     'strategy.type=RetrievalFSDPStrategy']])
def test_any_config_is_sharded_by_options(options):
    cfg = read_config(DEMO, options)
    assert RUNNERS.get(cfg.runner_type) and STRATEGIES.get(cfg.strategy.type)


def test_checkpoints_are_loaded_safely():
    assert_is_safe(FlexibleRetrievalRunner, FlexibleRunner)


SIGMOID = dict(dtype=torch.float32, loss=dict(type='SigmoidLoss', bias=-10.))


def gradient_of_bias(model, retriever, rows=slice(None)):
    frames, tokens = batch(4, dtype=torch.float32)
    model(frames[rows], tokens[rows], video_index=torch.arange(4)[rows], mode='loss')['loss'].backward()
    return retriever.loss_module.bias.grad


def shard():
    """A model of every block of which one process holds half."""
    os.environ['LOCAL_RANK'] = str(torch.distributed.get_rank())
    rows = slice(2 * torch.distributed.get_rank(), 2 * torch.distributed.get_rank() + 2)
    found = {}
    for method in ('full', 'vop'):
        whole = build(method, **SIGMOID)
        strategy = RetrievalFSDPStrategy(work_dir=os.environ['WORK_DIR'], experiment_name=method,
                                         env_kwargs=dict(launcher='pytorch', randomness=dict(seed=0)))
        model, _ = strategy.prepare(
            build(method, **SIGMOID), dispatch_kwargs=dict(train_micro_batch_size_per_gpu=4),
            optim_wrapper=dict(constructor='TrainableOptimWrapperConstructor', optimizer=dict(type='SGD', lr=0.1)))
        inside = model.module
        found[method] = dict(
            bias=gradient_of_bias(model, inside, rows),
            units=[isinstance(block, FullyShardedDataParallel)
                   for block in [*inside.backbone.vision_blocks, *inside.backbone.text_blocks]],
            count=sum(isinstance(module, FullyShardedDataParallel) for module in model.modules()),
            held=sum(p.numel() for p in model.parameters()), scale=inside.backbone.logit_scale.detach(),
            wanted=sum(p.numel() for p in whole.parameters()), fingerprint=inside.backbone.fingerprint,
            expected_fingerprint=whole.backbone.fingerprint)
    return found


def test_every_block_is_sharded(tmp_path, monkeypatch):
    monkeypatch.setenv('WORK_DIR', str(tmp_path))
    ranks = on_ranks(shard, 2)
    for method in ('full', 'vop'):
        whole = build(method, **SIGMOID)
        bias = gradient_of_bias(whole, whole)
        for found in (rank[method] for rank in ranks):
            assert all(found['units']) and found['count'] == len(found['units']) + 1
            assert found['held'] < 0.51 * found['wanted'] and found['scale'].shape == ()
            assert found['fingerprint'] == found['expected_fingerprint']
            torch.testing.assert_close(found['bias'], bias, rtol=1e-5, atol=0)
        held = sum(rank[method]['held'] for rank in ranks)
        assert held == ranks[0][method]['wanted'] + 2  # the logit scale and the loss's bias twice
