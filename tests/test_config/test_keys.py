"""Keys that nothing reads: refused, with the nearest one that is."""
import glob
import warnings

import pytest

from vop_mm.apis import init_model
from vop_mm.config import read_config

DEMO = 'configs/vop/vop_f_p_demo.py'


@pytest.mark.parametrize(('option', 'near'), [
    ('lr=5', 'optim_wrapper.optimizer.lr'), ('learning_rate=3', 'optim_wrapper.optimizer.lr'),
    ('optm.lr=3', 'optim_wrapper.optimizer.lr'), ('optim_wrapper.lr=3', 'optim_wrapper.optimizer.lr'),
    ('optim_wraper.type=x', 'optim_wrapper.type'), ('optim_wrapper.optimizer.lrr=3', "'lr'"),
    ('train_dataloader.batchsize=4', "'batch_size'"), ('batch_size=4', 'train_dataloader.batch_size'),
    ('trian_dataloader.batch_size=4', 'train_dataloader.batch_size'), ('model.nm_frames=3', "'num_frames'"),
    ('nm_frames=3', 'num_frames'), ('max_epochs=3', 'train_cfg.max_epochs'), ('train_cfg.max_epoch=3', "'max_epochs'"),
    ('epochs=3', 'train_cfg.max_epochs'), ('seed=3', 'randomness.seed'), ('randomness.sed=3', "'seed'"),
    ('model.backbone.ach=x', "'arch'"), ('model.frame_prompts.0.num_token=3', "'num_tokens'"),
    ('default_hooks.checkpont.interval=2', "'checkpoint'"), ('default_hooks.checkpoint.intervl=2', "'interval'"),
    ('default_hooks.logger.intervall=2', "'interval'"), ('param_scheduler.0.T_mx=2', "'T_max'"),
    ('val_dataloader.dataset.ann_fil=x', "'ann_file'"), ('val_evaluator.0.tie=x', "'ties'"),
    ('train_dataloader.dataset.data_prefix.vido=x', 'data_prefix.video'), ('env_cfg.dist_cfg.time_out=3', 'timeout'),
    ('train_dataloader.dataset.pipeline.0.sise=3', "'size'"), ('auto_scale_lr.enabel=True', "'enable'"),
    ('resum=True', 'resume'), ('wrk_dir=x', 'work_dir'), ('train_pipeline.0.size=3', 'pipeline.0.size')])
def test_an_unknown_key_names_the_nearest_one(option, near):
    key = option.split('=')[0]
    with pytest.raises(ValueError) as caught:
        read_config(DEMO, [option])
    message = str(caught.value)
    assert key in message and 'did you mean' in message and near in message.split('did you mean')[1]
    assert '\n' not in message and len(message) < 400


@pytest.mark.parametrize('option', ['_base_=x', '_delete_=True', '_num_frames=3', '__x=1',
                                    'data_preprocessor.mean=[1]'])
def test_names_that_a_file_may_have_are_no_options(option):
    with pytest.raises(ValueError, match=f'no key {option.split("=")[0]} in '):
        read_config(DEMO, [option])


@pytest.mark.parametrize('option', ['env_cfg.zzz=1', 'optim_wrapper.optimizer.momentum=0.9'])
def test_no_key_is_proposed_in_its_own_place(option):
    with pytest.raises(ValueError, match='it takes .*') as caught:
        read_config(DEMO, [option])
    assert 'did you mean' not in str(caught.value)


@pytest.mark.parametrize(('option', 'says'), [
    ('model.frame_prompts.0.type=BiLSTM', 'BiLSTM is no prompt; there are .*GenericPrompt'),
    ('model.text_prompts.0.type=ContextUpdate', 'ContextUpdate is no prompt; there are .*GenericPrompt'),
    ('model.frame_prompts.1={"type": "ContextPrompt", "mixer": {"type": "GenericPrompt"}}',
     'GenericPrompt is no mixer; there are .*BiLSTM'),
    ('model.cls_updates=[{"type": "vop_mm.ContextPrompt"}]', 'ContextPrompt is no update; there are Context'),
    ('model.tuning.type=GenericPrompt', 'GenericPrompt is no tuning; there are .*PromptTuning')])
def test_a_part_of_another_kind_is_refused_where_it_stands(option, says):
    with pytest.raises(ValueError, match=rf': (vop_mm\.)?{says}'):
        read_config(DEMO, [option])


def test_one_that_is_like_no_other():
    with pytest.raises(ValueError, match='no key zzz in .*demo.py, or none that is read$'):
        read_config(DEMO, ['zzz=1'])
    with pytest.raises(ValueError, match="ReadClip takes no 'zzz'"):
        read_config(DEMO, ['pipeline.0.zzz=1'])


@pytest.mark.parametrize('option', [
    'model.loss={"type": "SigmoidLoss", "bias": -10.}', 'model.recompute=True', 'model.backbone.compile=True',
    'model.tuning.logit_scale=True', 'model.cls_updates=[]',
    'optim_wrapper.accumulative_counts=2', 'optim_wrapper.clip_grad.max_norm=1.', 'optim_wrapper.optimizer.fused=True',
    'optim_wrapper.paramwise_cfg.bias_lr_mult=2.', 'optim_wrapper.type=AmpOptimWrapper', 'resume=True', 'load_from=x',
    'find_unused_parameters=True', 'model_wrapper_cfg.type=MMDistributedDataParallel', 'experiment_name=x',
    'strategy.type=DDPStrategy', 'default_hooks.ema.type=TrainableEMAHook', 'default_hooks.checkpoint=None',
    'default_hooks.checkpoint.save_last=False', 'custom_hooks.1.max_share=0.5', 'custom_hooks.0.priority=LOW',
    'train_dataloader.pin_memory=True', 'train_dataloader.prefetch_factor=4', 'train_dataloader.dataset.indices=4',
    'train_dataloader.num_batch_per_epoch=2', 'train_dataloader.sampler.seed=3', 'train_cfg.val_begin=2',
    'val_dataloader.dataset.on_unreadable=skip', 'test_evaluator.ties=optimistic', 'param_scheduler.0.begin=1',
    'randomness.deterministic=True', 'env_cfg.dist_cfg.init_method=env', 'method=mine', 'work_dir=x', 'log_level=DEBUG',
    'visualizer.name=v', 'train_dataloader.dataset.metainfo.x=1', 'val_cfg.fp16=True', 'sync_bn=torch'])
def test_keys_that_a_config_need_not_spell_out(option):
    read_config(DEMO, [option])


@pytest.mark.parametrize(('line', 'says'), [
    ('lr = 5', 'sets lr, which nothing reads: did you mean optim_wrapper.optimizer.lr?'),
    ('optim_wraper = dict(optimizer=dict(lr=5))', 'which nothing reads: did you mean optim_wrapper.optimizer.lr'),
    ('nmu_frames = 3', 'did you mean num_frames'),
    ('train_dataloader = dict(batchsize=4)', "takes no 'batchsize', did you mean 'batch_size'"),
    ('model = dict(nm_frames=3)', "TextVideoRetriever takes no 'nm_frames', did you mean 'num_frames'")])
def test_the_same_in_a_child_config(tmp_path, line, says):
    path = tmp_path / 'child.py'
    path.write_text(f'_base_ = [{str(glob.os.path.abspath(DEMO))!r}]\n{line}\n')
    with pytest.raises(ValueError) as caught:
        read_config(path)
    assert says in str(caught.value)


def test_a_file_of_its_own(tmp_path):
    """As a converter writes it: names that have done their work stay; one that is nearly another's is refused."""
    cfg = read_config(DEMO)
    cfg.test_dataloader.dataset.pipeline = [dict(type='PackVideoText')]
    cfg.val_dataloader = cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = None
    cfg.dump(tmp_path / 'whole.py')
    assert read_config(tmp_path / 'whole.py').pipeline == cfg.pipeline
    (tmp_path / 'whole.py').write_text((tmp_path / 'whole.py').read_text().replace('custom_hooks', 'custom_hook'))
    with pytest.raises(ValueError, match='sets custom_hook, which nothing reads: did you mean custom_hooks'):
        read_config(tmp_path / 'whole.py')


def test_the_other_style_of_configs(tmp_path):
    cfg = read_config(DEMO)
    cfg.dump(tmp_path / 'base.py')
    head = 'from mmengine.config import read_base\nwith read_base():\n    from .base import *\n'
    (tmp_path / 'child.py').write_text(f'{head}num_frames = 16\n')
    changed = read_config(tmp_path / 'child.py', ['train_cfg.max_epochs=3'])
    assert changed.model.num_frames == changed.test_dataloader.dataset.pipeline[0].num_frames == 16
    assert changed.param_scheduler[0].T_max == 3
    (tmp_path / 'child.py').write_text(f"{head}data_root = '/x/'\n")
    with pytest.raises(ValueError, match='sets data_root, which nothing reads: did you mean .*dataset.data_root'):
        read_config(tmp_path / 'child.py')


def test_a_note_in_a_config_is_warned_of(tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(f'_base_ = [{str(glob.os.path.abspath(DEMO))!r}]\nzzz = "tried on a Monday"\n')
    with pytest.warns(UserWarning, match='child.py sets zzz, which nothing reads'):
        read_config(path)


@pytest.mark.parametrize('path', sorted(p for p in glob.glob('configs/**/*.py', recursive=True)
                                        if p.endswith(('_demo.py', '_msrvtt.py')) or 'ablations' in p)
                         + glob.glob('projects/*/configs/*.py'))
def test_no_config_of_ours_sets_what_nothing_reads(path):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read_config(path)


def test_the_api_says_so_too():
    with pytest.raises(ValueError, match="takes no 'nm_frames', did you mean 'num_frames'"):
        init_model(DEMO, cfg_options={'model.nm_frames': 3})


def test_stored_frames_are_for_training_and_evaluation():
    with pytest.raises(ValueError, match=r'frames_from is for training and evaluation'):
        read_config(DEMO, ['frames_from=x'])
