"""What a config says in more than one place: frames, and the length of training."""
from pathlib import Path

import pytest
from mmengine.config import Config

from vop_mm.config import read_config
from vop_mm.config.meaning import stretch

DEMO, MSRVTT = Path('configs/vop/vop_f_p_demo.py').absolute(), Path('configs/vop/vop_msrvtt.py').absolute()


def frames(cfg):
    """Of the name, the model, and the three splits."""
    return [cfg.num_frames, cfg.model.num_frames, *(
        cfg[f'{split}_dataloader'].dataset.pipeline[0].num_frames for split in ('train', 'val', 'test'))]


@pytest.mark.parametrize('options', [['num_frames=16'], ['model.num_frames=16'],
                                     ['num_frames=16', 'model.num_frames=16']])
@pytest.mark.parametrize('config', [DEMO, MSRVTT])
def test_frames_by_option(config, options):
    assert frames(read_config(config, options)) == [16] * 5


@pytest.mark.parametrize('lines', ['num_frames = 16', 'model = dict(num_frames=16)',
                                   'num_frames = 16\nmodel = dict(num_frames=16)'])
def test_frames_in_a_child_config(tmp_path, lines):
    (tmp_path / 'child.py').write_text(f'_base_ = [{str(DEMO)!r}]\n{lines}\n')
    assert frames(read_config(tmp_path / 'child.py')) == [16] * 5
    assert frames(read_config(tmp_path / 'child.py', ['num_frames=8'])) == [8] * 5
    assert frames(read_config(tmp_path / 'child.py', ['model.num_frames=8'])) == [8] * 5
    (tmp_path / 'grandchild.py').write_text("_base_ = 'child.py'\nmodel = dict(num_frames=4)\n")
    assert frames(read_config(tmp_path / 'grandchild.py')) == [4] * 5


@pytest.mark.parametrize(('options', 'says'), [
    (['num_frames=16', 'model.num_frames=2'], r'takes 2 frames .* train data have 16'),
    (['pipeline.0.num_frames=16'], 'takes 12 frames .* train data have 16'),
    (['pipeline.0.num_frames=3'], 'takes 12 frames .* train data have 3'),
    (['test_dataloader.dataset.pipeline.0.num_frames=3'], 'takes 12 frames .* test data have 3'),
    (['val_dataloader.dataset.pipeline.0.num_frames=24'], 'takes 12 frames .* val data have 24')])
def test_a_model_and_data_that_disagree_are_refused(options, says):
    with pytest.raises(ValueError, match=f'{says}.*set num_frames='):
        read_config(DEMO, options)


def test_bases_that_disagree_are_refused(tmp_path):
    """Of two that stand side by side, neither was written upon the other."""
    bases = [str(DEMO.parents[1] / '_base_' / name) for name in ('datasets/demo.py', 'default_runtime.py')]
    (tmp_path / 'model.py').write_text(f"_base_ = {str(DEMO.parents[1] / '_base_/models/vop.py')!r}\n"
                                       'model = dict(num_frames=8)\n')
    (tmp_path / 'child.py').write_text(f"_base_ = {['model.py', *bases]}\n")
    with pytest.raises(ValueError, match='takes 8 frames .* train data have 12'):
        read_config(tmp_path / 'child.py')


def schedule(cfg):
    return cfg.train_cfg.max_epochs, cfg.param_scheduler[0].T_max


@pytest.mark.parametrize('epochs', [1, 20])
def test_schedules_follow_the_length_of_training(tmp_path, epochs):
    assert schedule(read_config(DEMO, [f'train_cfg.max_epochs={epochs}'])) == (epochs, epochs)
    (tmp_path / 'child.py').write_text(f'_base_ = [{str(DEMO)!r}]\ntrain_cfg = dict(max_epochs={epochs})\n')
    assert schedule(read_config(tmp_path / 'child.py')) == (epochs, epochs)
    assert schedule(read_config(tmp_path / 'child.py', ['train_cfg.max_epochs=3'])) == (3, 3)
    cfg = read_config(DEMO)
    assert schedule(read_config(cfg, [f'train_cfg.max_epochs={epochs}'])) == (epochs, epochs)


@pytest.mark.parametrize('epochs', ["'3'", 'None', '1.5'])
def test_a_length_of_another_kind_is_left_to_the_loop(epochs):
    read_config(DEMO, [f'train_cfg.max_epochs={epochs}'])


@pytest.mark.parametrize('epochs', [0, -1])
def test_no_training_is_refused(epochs):
    with pytest.raises(ValueError, match=f'train_cfg.max_epochs must be at least 1, got {epochs}'):
        read_config(DEMO, [f'train_cfg.max_epochs={epochs}'])


def test_a_schedule_that_was_set_beside_stays(tmp_path):
    assert schedule(read_config(DEMO, ['train_cfg.max_epochs=1', 'param_scheduler.0.T_max=4'])) == (1, 4)
    (tmp_path / 'child.py').write_text(f"""
_base_ = [{str(DEMO)!r}]
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=8)]
""")
    assert schedule(read_config(tmp_path / 'child.py')) == (20, 8)


def test_stretching_schedules_of_several_parts():
    cfg = Config(dict(train_cfg=dict(max_epochs=10), param_scheduler=[
        dict(type='LinearLR', end=1), dict(type='CosineAnnealingLR', begin=1, end=5, T_max=4),
        dict(type='PolyLR', end=5), dict(type='MultiStepLR', milestones=[3, 4]),
        dict(type='CosineAnnealingLR', by_epoch=False, T_max=5), dict(type='OneCycleLR', total_steps=5)]))
    stretch(cfg, 5, 10)
    assert [dict(s) for s in cfg.param_scheduler] == [
        dict(type='LinearLR', end=1), dict(type='CosineAnnealingLR', begin=1, end=10, T_max=9),
        dict(type='PolyLR', end=10), dict(type='MultiStepLR', milestones=[6, 8]),
        dict(type='CosineAnnealingLR', by_epoch=False, T_max=5), dict(type='OneCycleLR', total_steps=10)]


def test_training_by_iterations(tmp_path):
    (tmp_path / 'base.py').write_text(f"""
_base_ = [{str(DEMO)!r}]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=100)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, T_max=100)]
""")
    cfg = read_config(tmp_path / 'base.py', ['train_cfg.max_iters=40'])
    assert cfg.param_scheduler[0].T_max == 40
