"""What a run says before its first step, and what it refuses to start with."""
import re
from pathlib import Path

import pytest
import torch

from tests.test_tools.test_bad_input import assert_one_line
from tests.test_tools.test_train import options
from tests.tools import run_ranks, run_tool
from vop_mm.config import read_config
from vop_mm.engine.start_of_log import layers_without_prompts, log_what_trains
from vop_mm.registry import MODELS

ONE = {'train_cfg.max_epochs': 1}
LARGE, NO_VIDEO = 'model.backbone.arch=ViT-L-14-quickgelu', 'model.video_prompts'


def log_of(work_dir):
    file, = Path(work_dir).glob('*/*.log')
    return file.read_text()


def start(log):
    """The lines before the first step or, of an evaluation, the first result."""
    return re.split(r'^.*Epoch\((?:train|test)\)', log, maxsplit=1, flags=re.M)[0].splitlines()


@pytest.mark.parametrize(('config', 'says'), [
    ('configs/vop/vop_f_p_demo.py', 'VoP^F+P: 10,496 of 305,409 parameters (3.44%)'),
    ('configs/baselines/zero_shot_demo.py', 'Zero-shot: 0 of 294,913 parameters (0.00%)')])
def test_a_log_starts_with_what_trains(small_demo, tmp_path, config, says):
    changes = options(small_demo, **ONE, num_frames=12) if 'zero_shot' not in config else [
        '--cfg-options', f'data_root={small_demo}', 'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False']
    done = run_tool('tools/train.py', config, '--work-dir', tmp_path, *changes)
    assert done.returncode == 0, done.stderr
    lines = start(log_of(tmp_path))
    assert 5 < len(lines) <= 60
    assert sum(says in line for line in lines) == 1
    # in whole elsewhere
    whole = (tmp_path / Path(config).name).read_text()
    assert 'train_dataloader' in whole and any(str(tmp_path / Path(config).name) in line for line in lines)


def test_so_do_those_of_several_processes(small_demo, tmp_path):
    done = run_ranks('tools/train.py', 'configs/vop/vop_demo.py', '--launcher', 'pytorch', '--work-dir', tmp_path,
                     *options(small_demo, **ONE, **{'train_dataloader.batch_size': 8}), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = start(log_of(tmp_path))
    assert 5 < len(lines) <= 60
    assert sum('VoP: 4,096 of 299,009' in line for line in lines) == 1 and 'processes: 2' in '\n'.join(lines)


def test_debugging_shows_all(small_demo, tmp_path):
    done = run_tool('tools/train.py', 'configs/baselines/zero_shot_demo.py', '--work-dir', tmp_path, '--cfg-options',
                    f'data_root={small_demo}', 'test_dataloader.num_workers=0', 'log_level=DEBUG',
                    'test_dataloader.persistent_workers=False')
    log = log_of(tmp_path)
    assert done.returncode == 0 and 'System environment' in log and 'optim_wrapper=None' in log.replace(' ', '')


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self):
        self.said, self.warned = [], []
        self.info, self.warning = self.said.append, self.warned.append


def build(path, **changes):
    cfg = read_config(path, {'model.backbone.weights': None, **changes})
    with torch.device('meta'):
        return MODELS.build(cfg.model), cfg


def test_the_papers_model():
    logger = Lines()
    log_what_trains(logger, *build('configs/vop/vop_f_p_msrvtt.py'))
    assert logger.said == ['VoP^F+P: 402,432 of 151,679,745 parameters (0.27%)'] and logger.warned == []


# -- layers without a prompt -------------------------------------------------------------------------------------------
def test_layers_that_see_videos_without_prompts_for_them():
    model, cfg = build('configs/vop/vop_f_c_msrvtt.py', **{'model.backbone.arch': 'ViT-L-14-quickgelu', NO_VIDEO: []})
    message, = layers_without_prompts(model, cfg)
    assert 'layers 8 to 23 of the 24 layers of ViT-L-14-quickgelu' in message and NO_VIDEO in message
    logger = Lines()
    log_what_trains(logger, model, cfg)
    assert logger.warned == [message]


@pytest.mark.parametrize('method', ['vop', 'vop_p', 'vop_c', 'vop_f', 'vop_f_p', 'vop_f_c'])
def test_prompts_stand_everywhere_in_a_deeper_clip(method):
    scope = {'model.video_from': 16} if method.startswith('vop_f') else {}
    assert layers_without_prompts(*build(f'configs/vop/{method}_msrvtt.py', **{
        'model.backbone.arch': 'ViT-L-14-quickgelu', **scope})) == []


def test_training_is_refused_where_the_method_promises_prompts(small_demo, tmp_path):
    bare = {**ONE, 'model.frame_prompts': "[{'type': 'GenericPrompt', 'layers': (1, 3)}]"}
    config = 'configs/vop/vop_demo.py'
    done = run_tool('tools/train.py', config, '--work-dir', tmp_path / 'a', *options(small_demo, **bare))
    assert_one_line(done, 'layers 0, 3 of the 4 layers of MiniCLIP', 'have no prompt', 'prompts_in_all_layers=False')
    assert 'Epoch(train)' not in log_of(tmp_path / 'a')
    # meant, and silent
    done = run_tool('tools/train.py', config, '--work-dir', tmp_path / 'b', *options(
        small_demo, **bare, prompts_in_all_layers=False))
    assert done.returncode == 0 and 'have no prompt' not in log_of(tmp_path / 'b'), done.stderr
    # of a method that promises nothing: a warning
    done = run_tool('tools/train.py', config, '--work-dir', tmp_path / 'c', *options(
        small_demo, **bare, prompts_in_all_layers=None))
    assert done.returncode == 0 and 'layers 0, 3 of the 4 layers' in '\n'.join(start(log_of(tmp_path / 'c')))


def test_counting_warns():
    done = run_tool('tools/analysis_tools/count_parameters.py', 'configs/vop/vop_f_c_msrvtt.py', '--cfg-options', LARGE,
                    f'{NO_VIDEO}=[]')
    assert done.returncode == 0 and 'warning: ' in done.stderr and 'layers 8 to 23' in done.stderr


# -- schedules ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(('changes', 'says'), [
    ({}, None),
    ({'param_scheduler.0.T_max': 4}, 'CosineAnnealingLR ends at step 12 (4 epochs), training at step 3 (1 epoch'),
    ({'param_scheduler': "[{'type': 'MultiStepLR', 'milestones': [3]}]"}, 'MultiStepLR ends at step 12'),
    ({'param_scheduler': "[{'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 2}]"},
     'LinearLR ends at step 2'),
    ({'param_scheduler': "[{'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 2}, "
                         "{'type': 'CosineAnnealingLR', 'by_epoch': False, 'begin': 2, 'T_max': 1}]"}, None)])
def test_a_schedule_that_ends_elsewhere_is_warned_of(small_demo, tmp_path, changes, says):
    kept = 'param_scheduler.0.T_max' in changes
    arguments = [a for a in options(small_demo, **ONE, **changes) if kept or not a.startswith('param_scheduler.0.')]
    done = run_tool('tools/train.py', 'configs/vop/vop_demo.py', '--work-dir', tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    log = '\n'.join(start(log_of(tmp_path)))
    assert (says in log) if says else ('ends at' not in log)


# -- length and rates --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('changes', [{}, {'param_scheduler': None},
                                     {'train_cfg': "{'type': 'IterBasedTrainLoop', 'max_iters': 2, '_delete_': True}"}])
def test_fewer_pairs_than_a_batch_are_refused(small_demo, tmp_path, changes):
    arguments = [a for a in options(small_demo, **{'train_dataloader.batch_size': 99, **changes})
                 if not a.startswith('param_scheduler.0.') and not ('train_cfg' in changes and 'max_epochs' in a)]
    done = run_tool('tools/train.py', 'configs/vop/vop_demo.py', '--work-dir', tmp_path, *arguments)
    assert_one_line(done, 'has 48 pairs of video and caption', 'batch of 99', 'train_dataloader.batch_size')


def test_validation_that_never_begins_is_warned_of(small_demo, tmp_path):
    done = run_tool('tools/train.py', 'configs/vop/vop_demo.py', '--work-dir', tmp_path, *options(
        small_demo, **ONE, **{'train_cfg.val_begin': 2}))
    assert done.returncode == 0 and 'train_cfg.val_begin=2 is after the last epoch, 1' in log_of(tmp_path)


RULES = 'optim_wrapper.paramwise_cfg'


@pytest.mark.parametrize(('changes', 'says'), [
    ({f'{RULES}.custom_key.x.lr_mult': 2.}, "unknown rule 'custom_key' in paramwise_cfg"),
    ({f'{RULES}.bias_lr_mul': 2.}, "unknown rule 'bias_lr_mul' in paramwise_cfg"),
    ({f'{RULES}.custom_keys.zzz.lr_mult': 2.}, "no trainable parameter matches 'zzz'"),
    ({f'{RULES}.custom_keys.text_tower.lrmult': 2.}, "unknown setting 'lrmult' of 'text_tower'")])
def test_rules_for_rates_that_nothing_follows_are_refused(small_demo, tmp_path, changes, says):
    assert_one_line(run_tool('tools/train.py', 'configs/vop/vop_demo.py', '--work-dir', tmp_path, *options(
        small_demo, **ONE, **changes)), says)


@pytest.mark.parametrize('config', ['configs/vop/vop_demo.py', 'configs/baselines/bias_demo.py'])
def test_rules_for_rates_are_one_line(small_demo, tmp_path, config):
    rule = f'{RULES}.custom_keys.text_tower.lr_mult' if 'vop' in config else f'{RULES}.bias_lr_mult'
    done = run_tool('tools/train.py', config, '--work-dir', tmp_path, *options(
        small_demo, **ONE, **{rule: 2., 'optim_wrapper.optimizer.lr': 0.01}))
    assert done.returncode == 0, done.stderr
    lines = start(log_of(tmp_path))
    assert len(lines) <= 60 and sum('paramwise_cfg: ' in line and 'lr 0.02' in line for line in lines) == 1
