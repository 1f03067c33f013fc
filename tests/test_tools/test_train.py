"""tools/train.py and tools/test.py on real clips: training, resuming, distribution."""
import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tools import run_ranks, run_tool, start_tool

EPOCHS = 4
TRAIN = 'configs/vop/vop_demo.py'


def options(data, **changes):
    """A small and deterministic experiment on a small demo."""
    changes = {'num_frames': 3, 'train_dataloader.batch_size': 16, 'train_dataloader.num_workers': 0,
               'val_dataloader.num_workers': 0, 'test_dataloader.num_workers': 0,
               'train_dataloader.persistent_workers': False, 'val_dataloader.persistent_workers': False,
               'test_dataloader.persistent_workers': False, 'default_hooks.logger.interval': 1,
               'train_cfg.max_epochs': EPOCHS, 'param_scheduler.0.T_max': EPOCHS,
               **{f'{s}_dataloader.dataset.data_root': data for s in ('train', 'val', 'test')}, **changes}
    return ['--cfg-options', *(f'{k}={v}' for k, v in changes.items())]


def scalars(work_dir):
    """Every logged line with a loss, as dicts."""
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


def prompts(checkpoint):
    return torch.load(checkpoint, weights_only=True)['state_dict']


@pytest.fixture(scope='module')
def trained(small_demo, tmp_path_factory):
    """The undisturbed run that others are compared with."""
    work_dir = tmp_path_factory.mktemp('trained')
    done = run_tool('tools/train.py', TRAIN, '--work-dir', work_dir, *options(small_demo))
    assert done.returncode == 0, done.stderr
    return work_dir


def test_writes_what_trains_and_the_loss_falls(trained):
    losses = [line['loss'] for line in scalars(trained)]
    assert len(losses) == EPOCHS * 3  # 24 clips with two captions each, 16 pairs in a step
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    # the two last ones to resume from, and the best on the dev split
    assert sorted(p.name for p in trained.glob('epoch_*.pth')) == [f'epoch_{EPOCHS - 1}.pth', f'epoch_{EPOCHS}.pth']
    best, = trained.glob('best_t2v_R1_*.pth')
    checkpoint = torch.load(best, weights_only=True)
    assert set(checkpoint) == {'meta', 'state_dict'}
    assert {k: tuple(v.shape) for k, v in checkpoint['state_dict'].items()} == {
        'vision_tower.prompts.0.weight': (4, 8, 64), 'text_tower.prompts.0.weight': (4, 8, 64)}
    assert checkpoint['meta']['vop_mm']['method'] == 'VoP'
    assert checkpoint['meta']['vop_mm']['clip']['arch'] == 'MiniCLIP'
    assert checkpoint['meta']['vop_mm']['dataset'] == 'demo'
    assert 'GenericPrompt' in checkpoint['meta']['cfg']
    assert not list(trained.glob('.*.tmp'))


def test_evaluates_a_checkpoint_again_to_the_same_numbers(trained, small_demo, tmp_path):
    best, = trained.glob('best_*.pth')
    metrics = []
    for batch_size in (64, 5):
        done = run_tool('tools/test.py', TRAIN, best, '--work-dir', tmp_path, '--json', tmp_path / 'm.json',
                        *options(small_demo, **{'test_dataloader.batch_size': batch_size}))
        assert done.returncode == 0, done.stderr
        metrics.append(json.loads((tmp_path / 'm.json').read_text()))
    assert metrics[0] == metrics[1]
    assert {'t2v/R1', 't2v/MnR', 'v2t/R1', 'pair_accuracy'} <= set(metrics[0])


def test_killed_and_resumed_ends_with_the_same_prompts(trained, small_demo, tmp_path):
    process = start_tool('tools/train.py', TRAIN, '--work-dir', tmp_path, *options(small_demo))
    # somewhere after the first checkpoint, wherever that is in an epoch
    for line in process.stdout:
        if 'Epoch(train) [2]' in line:
            break
    time.sleep(random.uniform(0, 0.3))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    last = (tmp_path / 'last_checkpoint').read_text()
    assert torch.load(last, weights_only=True)['meta']['epoch'] < EPOCHS, 'it was killed too late'

    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path, '--resume', *options(small_demo))
    assert done.returncode == 0, done.stderr
    assert 'resumed epoch' in done.stdout + done.stderr
    name = f'epoch_{EPOCHS}.pth'
    expected, found = prompts(trained / name), prompts(tmp_path / name)
    assert all(torch.equal(expected[k], found[k]) for k in expected) and expected.keys() == found.keys()
    expected, found = (torch.load(d / name, weights_only=True) for d in (trained, tmp_path))
    for key in ('exp_avg', 'exp_avg_sq', 'step'):
        assert all(torch.equal(expected['optimizer']['state'][i][key], found['optimizer']['state'][i][key])
                   for i in expected['optimizer']['state'])


def test_two_processes_train_as_one(trained, small_demo, tmp_path):
    done = run_ranks('tools/train.py', TRAIN, '--launcher', 'pytorch', '--work-dir', tmp_path,
                     *options(small_demo, **{'train_dataloader.batch_size': 8}), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = scalars(trained), scalars(tmp_path)
    assert len(one) == len(two)
    # each rank logs the loss of the whole batch
    np.testing.assert_allclose([x['loss'] for x in two], [x['loss'] for x in one], rtol=0, atol=1e-3)
    name = f'epoch_{EPOCHS}.pth'
    expected, found = prompts(trained / name), prompts(tmp_path / name)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-3)


@pytest.mark.parametrize('launch', ['train', 'test', 'train on 2'])
def test_zero_shot_is_evaluated_by_any_command(small_demo, tmp_path, launch):
    config = 'configs/baselines/zero_shot_demo.py'
    changes = ['--cfg-options', f'test_dataloader.dataset.data_root={small_demo}', 'test_dataloader.num_workers=0',
               'test_dataloader.persistent_workers=False']
    if launch == 'train':
        done = run_tool('tools/train.py', config, '--work-dir', tmp_path, *changes)
    elif launch == 'test':
        done = run_tool('tools/test.py', config, '--work-dir', tmp_path, *changes)
    else:
        done = run_ranks('tools/train.py', config, '--launcher', 'pytorch', '--work-dir', tmp_path, *changes,
                         processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    log = '\n'.join(p.read_text() for p in tmp_path.glob('*/*.log'))
    found = [line for line in log.splitlines() if 't2v/R1:' in line]
    assert len(found) == 1, log[-2000:]


@pytest.mark.parametrize('tool', ['tools/train.py', 'tools/test.py', 'tools/data/make_demo.py',
                                  'tools/model_converters/modelscope_to_vop.py',
                                  'tools/analysis_tools/count_parameters.py', 'tools/analysis_tools/compare_methods.py',
                                  'tools/analysis_tools/eval_similarity.py', 'tools/visualizations/vis_retrieval.py'])
def test_help_is_there_at_once(tool):
    start = time.perf_counter()
    process = start_tool(tool, '--help')
    assert 'usage:' in process.communicate()[0] and process.returncode == 0
    assert time.perf_counter() - start < 3
