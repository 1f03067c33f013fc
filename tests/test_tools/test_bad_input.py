"""Bad input: one clear line, a non-zero exit, nothing half-written."""
import json
import resource
import shutil

import pytest
import torch

from tests.test_tools.test_train import TRAIN, options
from tests.tools import obey_permissions, run_tool
from tests.videos import encode_audio


def run(tmp_path, data, *args, config='configs/baselines/zero_shot_demo.py', options=()):
    return run_tool('tools/test.py', config, *args, '--work-dir', tmp_path / 'work', '--cfg-options',
                    f'test_dataloader.dataset.data_root={data}', 'test_dataloader.num_workers=0',
                    'test_dataloader.persistent_workers=False', *options)


def assert_one_line(done, *words):
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(errors) == 1, done.stderr
    assert 'Traceback' not in done.stderr + done.stdout
    for word in words:
        assert word in errors[0], errors[0]
    assert len(errors[0]) < 500


@pytest.fixture
def demo(small_demo, tmp_path):
    """A copy of the small demo that a test may break."""
    shutil.copytree(small_demo, tmp_path / 'demo')
    return tmp_path / 'demo'


@pytest.mark.parametrize(('content', 'words'), [
    (None, ['test.json', 'not']),
    ('{"a": ', ['test.json']),
    ('[1, 2]', ['test.json']),
    ('{"metainfo": {}, "data_list": []}', ['test.json']),
    ('{"metainfo": {}, "data_list": [{"video_id": "a", "video": "a.mp4"}]}', ['test.json', 'captions']),
    ('{}', ['test.json']),
])
def test_annotation_missing_ill_formed_or_empty(tmp_path, demo, content, words):
    (demo / 'test.json').unlink()
    if content is not None:
        (demo / 'test.json').write_text(content)
    assert_one_line(run(tmp_path, demo), *words)


def first_video(demo):
    return demo / 'videos' / json.loads((demo / 'test.json').read_text())['data_list'][0]['video']


def test_missing_video(tmp_path, demo):
    first_video(demo).unlink()
    assert_one_line(run(tmp_path, demo), first_video(demo).name, 'not found')


@pytest.mark.parametrize('kind', ['truncated', 'garbage', 'empty', 'audio only'])
@pytest.mark.parametrize('workers', [0, 1])
def test_unreadable_video(tmp_path, demo, kind, workers):
    path = first_video(demo)
    content = path.read_bytes()
    path.unlink()
    if kind == 'audio only':
        encode_audio(path)
    else:
        path.write_bytes({'truncated': content[:len(content) // 2], 'garbage': b'garbage' * 500, 'empty': b''}[kind])
    done = run(tmp_path, demo, options=[f'test_dataloader.num_workers={workers}'])
    assert_one_line(done, path.name)


def test_unreadable_video_left_out_by_option(tmp_path, demo):
    path = first_video(demo)
    path.write_bytes(b'garbage' * 500)
    done = run(tmp_path, demo, options=['test_dataloader.dataset.on_unreadable=skip'])
    assert done.returncode == 0, done.stderr
    assert path.stem in done.stdout + done.stderr  # reported by name
    log = ''.join(p.read_text() for p in (tmp_path / 'work').glob('*/*.log'))
    assert path.stem in log


def checkpoint(tmp_path, **changes):
    state = {f'{tower}_tower.prompts.0.weight': torch.zeros(4, 8, 64) for tower in ('vision', 'text')}
    clip = dict(arch='MiniCLIP', fingerprint='0' * 16)
    content = dict(meta={'vop_mm': dict(method='VoP', clip=clip)}, state_dict=state)
    torch.save({**content, **changes}, tmp_path / 'c.pth')
    return tmp_path / 'c.pth'


@pytest.mark.parametrize('kind', ['missing', 'garbage', 'truncated', 'other clip weights', 'other architecture',
                                  'other method'])
def test_checkpoint_that_is_not_this_models(tmp_path, small_demo, kind):
    path, words = checkpoint(tmp_path), ['c.pth']
    if kind == 'missing':
        path.unlink()
    elif kind == 'garbage':
        path.write_bytes(b'garbage' * 100)
    elif kind == 'truncated':
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == 'other clip weights':
        words = ['other CLIP weights', '0' * 16]
    elif kind == 'other architecture':
        checkpoint(tmp_path, meta={'vop_mm': dict(method='VoP', clip=dict(arch='ViT-B-32', fingerprint=''))})
        words = ['made on CLIP ViT-B-32', 'MiniCLIP']
    else:
        checkpoint(tmp_path, state_dict={'vision_tower.prompts.0.weight': torch.zeros(4, 8, 64)})
        words = ['lacks text_tower.prompts.0.weight']
    done = run(tmp_path, small_demo, path, config=TRAIN)
    assert_one_line(done, *words)


@pytest.mark.parametrize('key', ['model.frame_prompts.0.type', 'model.backbone.type', 'model.tuning.type',
                                 'val_evaluator.type', 'val_dataloader.dataset.pipeline.0.type'])
def test_unknown_name(tmp_path, small_demo, key):
    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path, *options(small_demo, **{key: 'NoSuchThing'}))
    assert_one_line(done, 'NoSuchThing is not in the')


def test_unknown_config_and_option(tmp_path):
    assert_one_line(run_tool('tools/train.py', 'configs/no_such.py'), 'config not found: configs/no_such.py')
    assert_one_line(run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path, '--cfg-options', 'x'), 'KEY=VALUE', "'x'")
    assert_one_line(run_tool('tools/test.py', TRAIN, '--work-dir', tmp_path), 'name the checkpoint')


def test_work_directory_that_cannot_be_written(tmp_path, small_demo):
    (tmp_path / 'file').write_text('')
    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path / 'file' / 'work', *options(small_demo))
    assert_one_line(done, 'file')
    (tmp_path / 'closed').mkdir(mode=0o500)
    done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path / 'closed' / 'work', *options(small_demo),
                    before=obey_permissions)
    assert_one_line(done, 'closed')


def test_work_directory_that_becomes_read_only_keeps_the_last_checkpoint(tmp_path, small_demo):
    work = tmp_path / 'work'
    arguments = ['tools/train.py', TRAIN, '--work-dir', work]
    one = options(small_demo, **{'train_cfg.max_epochs': 1, 'default_hooks.logger.interval': 100})
    assert run_tool(*arguments, *one).returncode == 0
    before = {p.name: p.read_bytes() for p in work.glob('*.pth')}
    work.chmod(0o500)
    done = run_tool(*arguments, '--resume', *options(small_demo), before=obey_permissions)
    work.chmod(0o700)
    assert_one_line(done, "can't be written", str(work))
    assert {p.name: p.read_bytes() for p in work.glob('*.pth')} == before and len(before) == 2


def test_a_checkpoint_that_can_not_be_written_to_its_end_leaves_the_last_one(tmp_path, small_demo):
    """A limit on the size of files, which needs no right to mount."""
    arguments = ['tools/train.py', TRAIN, '--work-dir', tmp_path]
    one = options(small_demo, **{'train_cfg.max_epochs': 1, 'default_hooks.logger.interval': 100})
    assert run_tool(*arguments, *one).returncode == 0
    whole = (tmp_path / 'epoch_1.pth').read_bytes()
    assert len(whole) > 40_000
    done = run_tool(*arguments, '--resume', *options(small_demo, **{'default_hooks.logger.interval': 100}),
                    before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY)))
    assert_one_line(done, 'File too large')
    assert (tmp_path / 'epoch_1.pth').read_bytes() == whole
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    assert not (tmp_path / 'epoch_2.pth').exists() and not list(tmp_path.glob('.*.tmp'))
