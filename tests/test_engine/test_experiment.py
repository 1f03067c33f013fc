"""Configs from the command line."""
import pytest
import torch
from mmengine.config import Config

from vop_mm.engine.experiment import load_config, shorten, use_amp

CONFIG = 'configs/vop/vop_msrvtt.py'


def test_options_change_the_config(tmp_path):
    cfg = load_config(CONFIG, ['model.backbone.weights=/x/y.pt', 'param_scheduler.0.T_max=3'], str(tmp_path), 'pytorch')
    assert cfg.model.backbone.weights == '/x/y.pt' and cfg.model.backbone.type == 'OpenCLIP'
    assert cfg.param_scheduler[0].T_max == 3 and cfg.work_dir == str(tmp_path) and cfg.launcher == 'pytorch'


def test_a_shorter_run_keeps_the_shape_of_its_schedule():
    cfg = Config.fromfile(CONFIG)
    shorten(cfg, 2)
    assert cfg.train_cfg.max_epochs == 2 and cfg.param_scheduler[0].T_max == 2
    zero_shot = Config.fromfile('configs/baselines/zero_shot_msrvtt.py')
    shorten(zero_shot, 2)
    assert zero_shot.train_cfg is None


def test_amp_needs_something_to_train():
    cfg = Config.fromfile(CONFIG)
    use_amp(cfg)
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper' and cfg.optim_wrapper.dtype == 'bfloat16'
    with pytest.raises(ValueError, match='does not train'):
        use_amp(Config.fromfile('configs/baselines/zero_shot_msrvtt.py'))


@pytest.mark.parametrize('gpu', [True, False])
def test_float16_is_for_gpus(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cfg = Config.fromfile(CONFIG)
    if gpu:
        use_amp(cfg, 'float16')
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.dtype == 'float16'
    else:
        with pytest.raises(ValueError, match='float16 requires a GPU'):
            use_amp(cfg, 'float16')
        assert cfg.optim_wrapper.type == 'OptimWrapper'
