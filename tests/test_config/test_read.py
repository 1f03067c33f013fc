"""Config files and the command line's changes to them."""
import sys

import pytest

from tests.tools import ROOT
from vop_mm.apis import init_model
from vop_mm.config import parse_options, read_config, require_checkpoint

CONFIG, ZERO_SHOT = 'configs/vop/vop_msrvtt.py', 'configs/baselines/zero_shot_msrvtt.py'


@pytest.mark.parametrize(('text', 'value'), [
    ('1e-3', 1e-3), ('12', 12), ('true', True), ('None', None), ('openai', 'openai'), ('/a b/c, d.pt', '/a b/c, d.pt'),
    ('[x, y]', ['x', 'y']), ('(1, 2)', (1, 2)), ('{"type": "T", "n": 1}', dict(type='T', n=1)), ('', None),
    ('a=b', 'a=b'), ("'12'", '12')])
def test_values_of_options(text, value):
    assert parse_options([f'a.b={text}']) == {'a.b': value}


@pytest.mark.parametrize(('path', 'option', 'error', 'says'), [
    ('configs/no.py', 'a=1', FileNotFoundError, 'config not found'),
    (CONFIG, 'a', ValueError, 'KEY=VALUE'),
    (CONFIG, 'param_scheduler.7.T_max=3', ValueError, "don't fit"),
    (ZERO_SHOT, 'train_cfg.max_epochs=1', ValueError, "don't fit")])
def test_bad_ones_are_refused(path, option, error, says):
    with pytest.raises(error, match=says):
        read_config(path, [option])


def test_one_that_was_read_stays_as_it_is():
    cfg = read_config(CONFIG)
    other = read_config(cfg, {'model.num_frames': 3})
    assert (cfg.model.num_frames, other.model.num_frames) == (12, 3) and other.filename == cfg.filename


def test_what_trains_takes_a_checkpoint():
    with pytest.raises(ValueError, match='vop_msrvtt.py trains: name the checkpoint to evaluate'):
        require_checkpoint(read_config(CONFIG), None, 'to evaluate')
    require_checkpoint(read_config(CONFIG), 'a.pth', 'to evaluate')
    require_checkpoint(read_config(ZERO_SHOT), None, 'to evaluate')


def test_a_config_without_a_model_has_no_model_to_give():
    with pytest.raises(ValueError, match='msrvtt.py has no model'):
        init_model('configs/_base_/datasets/msrvtt.py')


def test_the_modules_of_base_configs_are_imported_too(tmp_path, monkeypatch):
    (tmp_path / 'of_a_test.py').write_text('')
    (tmp_path / 'config.py').write_text(f"""
_base_ = {str(ROOT / 'configs/vop/vop_demo.py')!r}
custom_imports = dict(imports=['of_a_test'])
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    cfg = read_config('config.py')
    assert cfg.custom_imports.imports == ['demo.shapes.mini_clip', 'demo.shapes.pair_accuracy', 'of_a_test']
    (tmp_path / 'dumped.py').write_text(cfg.pretty_text)
    assert read_config('dumped.py').to_dict() == cfg.to_dict()


def test_an_option_of_an_evaluator_concerns_the_first_of_several_metrics():
    cfg = read_config('configs/vop/vop_demo.py', ['test_evaluator.ties=mean', 'val_evaluator.1.prefix=x'])
    assert [metric.to_dict() for metric in cfg.test_evaluator] == [
        dict(type='RetrievalMetric', ties='mean'), dict(type='PairAccuracy')]
    assert cfg.val_evaluator[1].prefix == 'x'
    assert read_config(CONFIG, ['test_evaluator.ties=mean']).test_evaluator.ties == 'mean'


def test_a_config_of_an_older_run_checks_losses_in_the_new_way(tmp_path):
    cfg = read_config(CONFIG)
    cfg.default_hooks.pop('runtime_info')
    cfg.default_hooks.invalid_loss = dict(type='CheckInvalidLossHook')
    (tmp_path / 'old.py').write_text(cfg.dump())
    for old in (tmp_path / 'old.py', cfg):  # a file, or a config in memory
        hooks = read_config(old, ['default_hooks.logger.interval=3']).default_hooks
        assert hooks.runtime_info.type == 'BufferedRuntimeInfoHook' and 'invalid_loss' not in hooks
