"""Names that other values were made from: a later change of the name is carried to them, or refused."""
import json
import textwrap

import pytest

from vop_mm.config import read_config
from vop_mm.config.values import get

DEMO, MSRVTT = 'configs/vop/vop_f_p_demo.py', 'configs/vop/vop_msrvtt.py'
SPLITS = ('train', 'val', 'test')


def values(cfg, *keys):
    """What stands there in the data set of each split."""
    return [get(cfg, (f'{split}_dataloader', 'dataset', *keys)) for split in SPLITS]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a config file; configs/ is named from the root."""
    import os
    root = os.getcwd()

    def write(name, text):
        (tmp_path / name).write_text(textwrap.dedent(text).replace('configs/', f'{root}/configs/'))
        return tmp_path / name
    return write


# -- by an option, and in a child config -------------------------------------------------------------------------------
CHANGES = [
    ('data_root', "'/x/'", DEMO, ('data_root',), '/x/'),
    ('data_root', "'/x/'", 'configs/vop/vop_activitynet.py', ('data_root',), '/x/'),
    ('data_root', "'/x/'", 'configs/vop/vop_msrvtt7k.py', ('data_root',), '/x/'),
    ('tokenizer', "{'context_length': 16}", DEMO, ('pipeline', 1, 'tokenizer', 'context_length'), 16),
    ('pipeline', "[{'type': 'PackVideoText'}]", DEMO, ('pipeline',), [dict(type='PackVideoText')])]


@pytest.mark.parametrize(('name', 'value', 'config', 'keys', 'found'), CHANGES)
@pytest.mark.parametrize('way', ['option', 'child'])
def test_a_name_is_changed_wherever_its_base_configs_used_it(write, way, name, value, config, keys, found):
    if way == 'option':
        cfg = read_config(config, [f'{name}={value}'])
    else:
        cfg = read_config(write('child.py', f'_base_ = [{config!r}]\n{name} = {value}\n'))
    assert values(cfg, *keys) == [found] * 3


def test_part_of_a_pipeline(write):
    cfg = read_config(MSRVTT, ['train_pipeline.0.sampling=time', 'test_pipeline.0.size=128'])
    assert values(cfg, 'pipeline', 0, 'sampling') == ['time', 'number', 'number']
    assert cfg.val_dataloader.dataset.pipeline[0].size == cfg.test_dataloader.dataset.pipeline[0].size == 128
    # together with a name inside it
    cfg = read_config(MSRVTT, ['train_pipeline.0.sampling=time', 'num_frames=16'])
    assert values(cfg, 'pipeline', 0, 'sampling') == ['time', 'number', 'number']
    assert values(cfg, 'pipeline', 0, 'num_frames') == [16] * 3


def test_where_to_write_scalars(write):
    backends = [dict(type='TensorboardVisBackend')]
    assert read_config(DEMO, ["vis_backends=[{'type': 'TensorboardVisBackend'}]"]).visualizer.vis_backends == backends
    child = write('child.py', f"_base_ = [{DEMO!r}]\nvis_backends = [dict(type='TensorboardVisBackend')]\n")
    assert read_config(child).visualizer.vis_backends == backends


def test_what_is_set_itself_stays(write):
    cfg = read_config(DEMO, ['data_root=/x/', 'test_dataloader.dataset.data_root=/y/'])
    assert values(cfg, 'data_root') == ['/x/', '/x/', '/y/']
    child = write('child.py', f"""
        _base_ = [{DEMO!r}]
        data_root = '/x/'
        test_dataloader = dict(dataset=dict(data_root='data/demo/'))
        """)
    assert values(read_config(child), 'data_root') == ['/x/', '/x/', 'data/demo/']
    assert values(read_config(child, ['data_root=/z/']), 'data_root') == ['/z/', '/z/', 'data/demo/']
    # by what is written below a place that is carried
    cfg = read_config(DEMO, ['pipeline.0.timeout=5', 'val_dataloader.dataset.pipeline.0.timeout=7'])
    assert values(cfg, 'pipeline', 0, 'timeout') == [5, 7, 5]


# -- names of the user's own -------------------------------------------------------------------------------------------
OWN = f"""
    _base_ = [{DEMO!r}]
    size = 16
    ids = dict(train=1, val=2)
    train_dataloader = dict(batch_size=size, dataset=dict(indices=ids['train']))
    val_dataloader = dict(batch_size=ids['val'])
    work_dir = f'runs/{{size}}'
    """


def test_names_of_a_users_base(write):
    write('own.py', OWN)
    child = write('child.py', "_base_ = 'own.py'\nids = dict(train=7)\n")
    cfg = read_config(child, ['ids.val=9'])
    assert cfg.train_dataloader.dataset.indices == 7 and cfg.val_dataloader.batch_size == 9
    assert read_config(write('grandchild.py', "_base_ = ['child.py']\n")).train_dataloader.dataset.indices == 7


def test_the_outcome_of_an_expression_is_refused(write):
    own = write('own.py', OWN)
    with pytest.raises(ValueError, match=r'size was changed after .*own.py had made work_dir from it: change work_dir'):
        read_config(own, ['size=8'])
    cfg = read_config(own, ['size=8', 'work_dir=runs/8'])
    assert cfg.train_dataloader.batch_size == 8
    assert read_config(own, ['size=16']).work_dir == 'runs/16'  # the same value


@pytest.mark.parametrize('template', ['{{_base_.rate}}', "'{{_base_.rate}}'", '_base_.rate', "_base_['rate']"])
def test_templates(write, template):
    write('base.py', f'_base_ = [{DEMO!r}]\nrate = 0.5\noptim_wrapper = dict(optimizer=dict(weight_decay=rate))\n')
    middle = write('middle.py', f"_base_ = 'base.py'\noptim_wrapper = dict(optimizer=dict(lr={template}))\n")
    cfg = read_config(middle, ['rate=0.25'])
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (0.25, 0.25)


def test_bases_of_json(write, tmp_path):
    write('base.py', f'_base_ = [{DEMO!r}]\nrate = 0.5\noptim_wrapper = dict(optimizer=dict(weight_decay=rate))\n')
    content = json.dumps(dict(_base_='base.py', optim_wrapper=dict(optimizer=dict(lr='RATE'))))
    (tmp_path / 'child.json').write_text(content.replace('"RATE"', '{{ _base_.rate }}'))
    for name, of_yaml in (('child.json', ''), ('child.yaml', '_base_: child.json\nrate: 0.25\n')):
        (tmp_path / name).write_text(of_yaml or (tmp_path / name).read_text())
        cfg = read_config(tmp_path / name, [] if of_yaml else ['rate=0.25'])
        assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (0.25, 0.25)


def test_names_that_are_assigned_twice_or_in_a_condition_are_not_guessed_at(write):
    own = write('own.py', f"""
        _base_ = [{DEMO!r}]
        size = 8
        train_dataloader = dict(batch_size=size)
        size = 4
        val_dataloader = dict(batch_size=size)
        if size > 2:
            log_level = 'DEBUG'
        """)
    cfg = read_config(own)
    assert (cfg.train_dataloader.batch_size, cfg.val_dataloader.batch_size) == (8, 4)
    with pytest.raises(ValueError, match='change train_dataloader.batch_size itself'):
        read_config(own, ['size=2'])


def test_deleted_places_are_left_alone(write):
    child = write('child.py', f"""
        _base_ = [{DEMO!r}]
        data_root = '/x/'
        val_dataloader = val_cfg = val_evaluator = None
        train_dataloader = dict(_delete_=True, batch_size=2, dataset=dict(type='VideoTextDataset', ann_file='a.json'))
        """)
    cfg = read_config(child)
    assert cfg.val_dataloader is None and 'data_root' not in cfg.train_dataloader.dataset
    assert cfg.test_dataloader.dataset.data_root == '/x/'


def test_a_config_as_a_run_writes_it(write, tmp_path):
    """Every value is in its place, and nothing is made from anything."""
    path = tmp_path / 'vop_f_p_demo.py'
    cfg = read_config(DEMO)
    cfg.work_dir, cfg.launcher = 'work', 'none'
    cfg.dump(path)
    assert read_config(path).to_dict() == cfg.to_dict()
    for written in (path, cfg):
        changed = read_config(written, {'num_frames': 16})
        assert values(changed, 'pipeline', 0, 'num_frames') == [16] * 3
        with pytest.raises(ValueError, match=r'data_root .*did you mean .*train_dataloader.dataset.data_root'):
            read_config(written, {'data_root': '/x'})
        with pytest.raises(ValueError, match=r'pipeline.0.size .*did you mean .*test_dataloader.dataset.pipeline.0.'):
            read_config(written, {'pipeline.0.size': 3})
    child = write('child.py', "_base_ = ['vop_f_p_demo.py']\nnum_frames = 16\n")
    assert values(read_config(child), 'pipeline', 0, 'num_frames') == [16] * 3
    with pytest.raises(ValueError, match='tokenizer.context_length, which nothing reads'):
        read_config(write('child.py', "_base_ = ['vop_f_p_demo.py']\ntokenizer = dict(context_length=3)\n"))
