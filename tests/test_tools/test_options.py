"""Options and child configs as users type them: carried out in a real run, or refused in one line."""
import pytest
import torch

from tests.test_tools.test_bad_input import assert_one_line
from tests.test_tools.test_train import options, prompts
from tests.tools import ROOT, run_tool

CONFIG = 'configs/vop/vop_f_p_demo.py'


def train(data, work_dir, config=CONFIG, without=None, **changes):
    arguments = options(data, **{'train_cfg.max_epochs': 1, 'train_dataloader.dataset.indices': 16, **changes})
    return run_tool('tools/train.py', config, '--work-dir', work_dir, *(a for a in arguments if a != without))


@pytest.mark.parametrize('way', ['num_frames', 'model.num_frames', 'child'])
def test_more_frames_train_more_positions(small_demo, tmp_path, way):
    config, changes = CONFIG, {way: 16}
    if way == 'child':
        (tmp_path / 'child.py').write_text(f'_base_ = [{str(ROOT / CONFIG)!r}]\nnum_frames = 16\n')
        config, changes = tmp_path / 'child.py', {}
    if way != 'num_frames':
        changes['without'] = 'num_frames=3'
    done = train(small_demo, tmp_path / 'work', config, **changes)
    assert done.returncode == 0, done.stderr
    positions = [w for name, w in prompts(tmp_path / 'work' / 'epoch_1.pth').items() if 16 in w.shape]
    assert positions
    start = train(small_demo, tmp_path / 'start', config, **{**changes, 'optim_wrapper.optimizer.lr': 0.})
    assert start.returncode == 0, start.stderr
    for name, before in prompts(tmp_path / 'start' / 'epoch_1.pth').items():
        if 16 in before.shape:  # every frame's row has moved
            after = prompts(tmp_path / 'work' / 'epoch_1.pth')[name]
            frame = before.shape.index(16)
            other = [d for d in range(before.ndim) if d != frame]
            assert torch.all((after - before).abs().sum(other) > 0)


def test_other_data(demo_folder, small_demo):
    """Those of the option, though the config's own are there too."""
    (demo_folder / 'data' / 'demo').unlink()
    (demo_folder / 'other').symlink_to(small_demo)
    arguments = [a for a in options('x', **{'train_cfg.max_epochs': 1}) if 'data_root' not in a]
    done = run_tool('tools/train.py', ROOT / CONFIG, '--work-dir', 'work', *arguments, 'data_root=other/',
                    cwd=demo_folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('tool', ['tools/train.py', 'tools/test.py', 'tools/analysis_tools/count_parameters.py',
                                  'tools/analysis_tools/compare_methods.py', 'tools/visualizations/browse_dataset.py',
                                  'tools/analysis_tools/search_learning_rate.py'])
def test_every_tool_refuses_what_nothing_reads(tool, small_demo, tmp_path):
    own = {'compare_methods': ['--out', tmp_path], 'search_learning_rate': ['--out', tmp_path],
           'train': ['--work-dir', tmp_path], 'browse_dataset': [tmp_path / 'x.png']}
    arguments = own.get(tool.split('/')[-1].removesuffix('.py'), [])
    done = run_tool(tool, CONFIG, *arguments, '--cfg-options', f'data_root={small_demo}', 'lr=5')
    assert_one_line(done, 'no key lr', 'did you mean optim_wrapper.optimizer.lr?')
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize(('key', 'value', 'words'), [
    ('model.frame_prompts.0.num_tokens', 'many', ['GenericPrompt']),
    ('model.num_frames', '[1]', ['model.num_frames must be a whole number']),
    ('train_cfg.max_epochs', 'many', ['many', 'EpochBasedTrainLoop']),
    ('default_hooks.logger.interval', '[]', ['LoggerHook']),
    ('model.tuning', "{'type': 'AdapterTuning', '_delete_': True}", ['AdapterTuning']),
    ('optim_wrapper.optimizer.lr', 'fast', ['AdamW'])])
def test_an_argument_of_a_wrong_kind_is_one_line(small_demo, tmp_path, key, value, words):
    assert_one_line(train(small_demo, tmp_path, **{key: value}), *words)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'train_cfg.max_epochs': "'1'"}, ['max_epochs', 'EpochBasedTrainLoop']),
    ({'train_cfg.max_epochs': 0}, ['train_cfg.max_epochs must be at least 1']),
    ({'model.frame_prompts.0': 3}, ["--cfg-options don't fit"]),
    ({'custom_imports': 'os'}, ['custom_imports is a dict']),
    ({'custom_imports.foo': 1}, ["custom_imports takes no 'foo'"]),
    ({'log_level': 'info'}, ['log_level is one of']),
    ({'auto_scale_lr': None, 'num_frames': True}, ['num_frames takes a number'])])
def test_values_that_fit_nowhere(small_demo, tmp_path, changes, words):
    changes = {**changes, 'param_scheduler': "[{'type': 'CosineAnnealingLR', 'T_max': 8}]"}
    arguments = [a for a in options(small_demo, **changes) if not a.startswith('param_scheduler.0.')]
    assert_one_line(run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path, *arguments), *words)


def test_options_that_a_tool_would_not_read(small_demo, tmp_path):
    assert_one_line(train(small_demo, tmp_path, launcher='pytorch'), '--launcher')
    done = run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path, '--cfg-options', 'work_dir=x')
    assert_one_line(done, 'work_dir=x', 'give only one')
    assert_one_line(train(small_demo, tmp_path, **{'strategy.type': 'DDPStrategy'}),
                    'RetrievalRunner takes no strategy')
    for option in ('load_from=y.pth', 'resume=True'):
        done = run_tool('tools/test.py', CONFIG, ROOT / 'README.md', '--work-dir', tmp_path, '--cfg-options', option)
        assert_one_line(done, option.split('=')[0], 'give the checkpoint as the second argument')


@pytest.mark.parametrize(('tool', 'option', 'own'), [
    ('compare_methods', 'randomness.seed=3', '--seeds'), ('compare_methods', 'work_dir=x', '--out'),
    ('compare_methods', 'train_cfg.max_epochs=3', '--max-epochs'),
    ('search_learning_rate', 'randomness.seed=3', '--seed'),
    ('search_learning_rate', 'train_cfg.max_epochs=3', '--epochs')])
def test_options_that_a_tool_sets_itself(tmp_path, tool, option, own):
    epochs = [own, '2'] if 'epochs' in own else []
    done = run_tool(f'tools/analysis_tools/{tool}.py', CONFIG, '--out', tmp_path, *epochs, '--cfg-options', option)
    assert_one_line(done, option, f'use {own} instead')


def test_options_named_twice_all_count():
    done = run_tool('tools/train.py', CONFIG, '--cfg-options', 'lr=5', '--cfg-options', 'log_level=INFO')
    assert_one_line(done, 'no key lr')
    done = run_tool('tools/visualizations/vis_retrieval.py', CONFIG, 'x.png', '--features', 'a=gone.npz', '--features',
                    f'b={ROOT / "README.md"}')
    assert_one_line(done, 'gone.npz')


def test_resuming_by_an_option_of_the_config(small_demo, tmp_path):
    """A checkpoint by name, and what is left of a run: where nothing is, from load_from."""
    assert train(small_demo, tmp_path / 'a').returncode == 0
    last = tmp_path / 'a' / 'epoch_1.pth'
    more = {'train_cfg.max_epochs': 2, 'param_scheduler.0.T_max': 2}
    assert_one_line(train(small_demo, tmp_path / 'b', resume='gone.pth'), 'checkpoint not found: gone.pth')
    assert train(small_demo, tmp_path / 'b', resume=last, **more).returncode == 0
    assert train(small_demo, tmp_path / 'a', resume='auto', load_from=last, **more).returncode == 0
    for name in 'ab':  # neither trained the first epoch again
        assert not list((tmp_path / name).glob('*/*.log'))[-1].read_text().count('Epoch(train) [1]') or name == 'a'
        assert (tmp_path / name / 'epoch_2.pth').is_file()
    still = {'optim_wrapper.optimizer.lr': 0., 'load_from': last}
    arguments = options(small_demo, **{'train_cfg.max_epochs': 1, 'train_dataloader.dataset.indices': 16, **still})
    done = run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path / 'c', '--resume', *arguments)
    assert done.returncode == 0, done.stderr
    before, after = prompts(last), prompts(tmp_path / 'c' / 'epoch_1.pth')
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_config_of_a_resumed_run_is_evaluated(small_demo, tmp_path):
    assert train(small_demo, tmp_path, resume=True).returncode == 0
    best, = tmp_path.glob('best_*.pth')
    done = run_tool('tools/test.py', tmp_path / 'vop_f_p_demo.py', best, '--work-dir', tmp_path / 'test')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(('flags', 'says'), [
    (['index_videos.py', 'docs', 'x', '--features', 'f', '--config', CONFIG],
     '--config cannot be used with --features'),
    (['index_videos.py', 'docs', 'x', '--features', 'f', '--window', '3'], '--window cannot be used with --features'),
    (['data/check_dataset.py', CONFIG, '--num-frames', '3'], '--num-frames goes with ANN_FILE'),
    (['data/check_dataset.py', 'a.json', '--video-dir', 'docs', '--split', 'val'], '--split goes with CONFIG')])
def test_flags_of_another_use(flags, says):
    done = run_tool(f'tools/{flags[0]}', *flags[1:])
    assert done.returncode == 2 and says in done.stderr


@pytest.mark.parametrize(('config', 'flags', 'status', 'says'), [
    (CONFIG, ['--amp-dtype', 'bfloat16'], 2, '--amp-dtype requires --amp'),
    ('configs/baselines/zero_shot_demo.py', ['--resume'], 1, 'does not train'),
    ('configs/baselines/zero_shot_demo.py', ['--amp'], 1, 'does not train')])
def test_flags_without_effect(tmp_path, config, flags, status, says):
    done = run_tool('tools/train.py', config, '--work-dir', tmp_path, *flags)
    assert done.returncode == status and says in done.stderr


# -- projects in the working directory ---------------------------------------------------------------------------------
@pytest.fixture
def project(demo_folder):
    """A folder with a module and a config that names it, and a file that would hide a library."""
    (demo_folder / 'mine').mkdir()
    (demo_folder / 'mine' / 'prompt.py').write_text("""
from vop_mm.models.prompts import GenericPrompt
from vop_mm.registry import PROMPTS
import json


@PROMPTS.register_module(force=True)
class MinePrompt(GenericPrompt):
    assert json.dumps
""")
    (demo_folder / 'json.py').write_text('raise RuntimeError("the wrong one")\n')
    (demo_folder / 'mine.py.txt').write_text('')
    (demo_folder / 'config.py').write_text(f"""
_base_ = [{str(ROOT / 'configs/vop/vop_demo.py')!r}]
custom_imports = dict(imports=['mine.prompt'])
model = dict(frame_prompts=[dict(type='MinePrompt', num_tokens=8)])
""")
    return demo_folder


@pytest.mark.parametrize('tool', ['train', 'analysis_tools/count_parameters'])
def test_modules_of_the_working_directory(project, tool):
    arguments = options('data/demo', **{'train_cfg.max_epochs': 1}) if tool == 'train' else []
    done = run_tool(f'tools/{tool}.py', 'config.py', *arguments, cwd=project)
    assert done.returncode == 0, done.stderr


def test_modules_named_by_an_option(project):
    (project / 'config.py').write_text((project / 'config.py').read_text().replace('custom_imports', '# '))
    done = run_tool('tools/train.py', 'config.py', *options('data/demo', **{
        'train_cfg.max_epochs': 1, 'custom_imports.imports': ['mine.prompt']}), cwd=project)
    assert done.returncode == 0, done.stderr


def test_a_module_that_is_not_there(project):
    (project / 'mine' / 'prompt.py').unlink()
    done = run_tool('tools/train.py', 'config.py', cwd=project)
    assert_one_line(done, 'mine.prompt', 'working directory', str(project))
