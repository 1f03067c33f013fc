"""Values that Python would take for something else."""
import pytest

from vop_mm.config import read_config

DEMO = 'configs/vop/vop_f_p_demo.py'


@pytest.mark.parametrize(('option', 'says'), [
    ('num_frames=True', 'num_frames takes a number, as 12, got True'),
    ('train_dataloader.batch_size=true', 'train_dataloader.batch_size takes a number'),
    ('optim_wrapper.optimizer.lr=False', 'optim_wrapper.optimizer.lr takes a number'),
    ('train_dataloader={"batch_size": True}', 'train_dataloader.batch_size takes a number'),
    ('train_dataloader.sampler.shuffle=flase', "train_dataloader.sampler.shuffle takes true or false, got 'flase'"),
    ('auto_scale_lr.enable=on_', 'auto_scale_lr.enable takes true or false'),
    ('prompts_in_all_layers="False"', "prompts_in_all_layers takes true or false, got 'False'")])
def test_true_for_a_number_and_text_for_true(option, says):
    with pytest.raises(ValueError, match=says):
        read_config(DEMO, [option])


@pytest.mark.parametrize('option', ['train_dataloader.sampler.shuffle=off', 'resume=auto', 'resume=x.pth',
                                    'randomness.seed=None', 'train_dataloader.num_workers=0', 'log_level=WARN',
                                    'optim_wrapper.optimizer.lr=1', 'prompts_in_all_layers=None'])
def test_what_is_meant_so(option):
    read_config(DEMO, [option])


@pytest.mark.parametrize(('line', 'says'), [
    ('num_frames = True', 'must be a whole number, at least 1, got True'),
    ('num_frames = 16.', 'must be a whole number, at least 1, got 16.0'),
    ('num_frames = 0', 'must be a whole number, at least 1, got 0'),
    ('log_level = "info"', "log_level is one of .* got 'info'"), ('log_level = 20', 'log_level is one of .* got 20'),
    ('custom_imports = ["os"]', 'custom_imports is a dict with a list'),
    ('custom_imports = dict(imports=[1])', 'custom_imports is a dict with a list')])
def test_the_same_in_a_file(tmp_path, line, says):
    import os
    (tmp_path / 'child.py').write_text(f'_base_ = [{os.path.abspath(DEMO)!r}]\n{line}\n')
    with pytest.raises(ValueError, match=says):
        read_config(tmp_path / 'child.py')
