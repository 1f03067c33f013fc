"""All doors through which MMEngine takes a checkpoint: in our runs what comes in is data; elsewhere nothing changes."""
import http.server
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from tests.checkpoints import demo_config, write_checkpoint
from tests.test_engine.test_checkpoint import build, save
from tests.test_tools.test_crafted_pickle import Code
from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool
from vop_mm.engine.checkpoint import CheckpointError
from vop_mm.engine.hooks import TrainableCheckpointHook
from vop_mm.engine.resuming import check_resumable
from vop_mm.engine.runner import RetrievalRunner
from vop_mm.engine.safe_loading import SafeLoading, last_checkpoint, load_from_anywhere, safe_loading

METHODS = ('train', 'val', 'test', 'load_checkpoint', 'resume')
HUBS = ['s3://bucket/x.pth', 'petrel://x', 'a:s3://x', 'open-mmlab:s3://x', 'open-mmlab://resnet50', 'openmmlab://resnet50',
        'modelzoo://resnet50', 'torchvision://resnet50', 'mmcls://x', 'pavi://x', 'file:///tmp/x.pth', 'ftp://127.0.0.1/x']


@pytest.fixture
def canary(tmp_path):
    return tmp_path / 'it_ran'


@pytest.fixture
def site(tmp_path):
    """A folder that is served on a loopback address."""
    folder = tmp_path / 'site'
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            if self.path.startswith('/to/'):
                self.send_response(302)
                self.send_header('Location', self.path[4:])
                self.end_headers()
            elif self.path == '/short.pth':
                self.send_response(200)
                self.send_header('Content-Length', '1000')
                self.end_headers()
                self.wfile.write(b'PK')
            else:
                super().do_GET()

        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def crafted(path, canary):
    """In all else a checkpoint; in two forms, the other being that of old files."""
    torch.save(dict(meta={}, state_dict={}, message_hub=Code(str(canary))), path)
    path.with_suffix('.old.pth').write_bytes(pickle.dumps(dict(state_dict={}, x=Code(str(canary)))))


def test_outside_of_runs_nothing_changes():
    """In a process that has nothing of ours but a retriever."""
    code = '''
from mmengine.runner import checkpoint
before = dict(checkpoint.CheckpointLoader._schemes)
import vop_mm.apis, vop_mm.engine
from vop_mm.apis import VideoSearcher
VideoSearcher('configs/baselines/zero_shot_demo.py')
assert checkpoint.CheckpointLoader._schemes == before, checkpoint.CheckpointLoader._schemes
assert checkpoint.CheckpointLoader._schemes[''] is checkpoint.load_from_local
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('method', METHODS)
def test_inside_of_runs_every_name_is_read_safely(tmp_path, canary, site, method):
    """Whatever in a run asks MMEngine for a checkpoint: a hook, initial weights, the runner itself."""
    crafted(site[0] / 'evil.pth', canary)
    schemes, asked = CheckpointLoader._schemes, []

    def inside(self, *args):
        for name in [*(f'{where}/{name}' for where in site for name in ('evil.pth', 'evil.old.pth')), *HUBS]:
            with pytest.raises(CheckpointError, match='refused|not a readable'):
                CheckpointLoader.load_checkpoint(str(name))
            asked.append(name)
        module = BaseModule(dict(type='Pretrained', checkpoint=f'{site[1]}/evil.pth'))
        module.layer = nn.Linear(1, 1)
        with pytest.raises(CheckpointError, match='refused'):
            module.init_weights()
    run = type('Run', (SafeLoading, type('Runner', (), {method: inside})), {})()
    getattr(run, method)('x') if method in ('load_checkpoint', 'resume') else getattr(run, method)()
    assert len(asked) == 4 + len(HUBS) and not canary.exists()
    assert CheckpointLoader._schemes is schemes


def test_runs_side_by_side_are_all_safe():
    schemes, both = CheckpointLoader._schemes, threading.Barrier(2)

    def run(first):
        with safe_loading():
            both.wait(10)
            if not first:
                both.wait(10)  # the other one has ended
                seen.append(CheckpointLoader._schemes)
        if first:
            both.wait(10)
    seen, threads = [], [threading.Thread(target=run, args=(first, )) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == [{'': load_from_anywhere}] and CheckpointLoader._schemes is schemes
    with pytest.raises(KeyError), safe_loading():
        raise KeyError
    assert CheckpointLoader._schemes is schemes


def test_a_checkpoint_by_http(site, tmp_path):
    folder, address = site
    save(build(), folder / 'a.pth')
    expected = torch.load(folder / 'a.pth', weights_only=True)['state_dict']
    for name in ('a.pth', 'to//a.pth', f'to/{address}/a.pth'):
        found = load_from_anywhere(f'{address}/{name}')['state_dict']
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    (folder / 'a-deadbeef.pth').write_bytes((folder / 'a.pth').read_bytes())
    with pytest.raises(CheckpointError, match='its name says'):
        load_from_anywhere(f'{address}/a-deadbeef.pth')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        nobody = f'http://127.0.0.1:{s.getsockname()[1]}/a.pth'
    (tmp_path / 'x.pth').write_bytes((folder / 'a.pth').read_bytes())
    for url in (f'{address}/nothing.pth', nobody, f'{address}/short.pth', f'{address}/to/file://{tmp_path}/x.pth',
                f'{address}/to/ftp://127.0.0.1/x.pth', 'http://'):
        with pytest.raises(ConnectionError, match='cannot be downloaded') as caught:
            load_from_anywhere(url)
        assert '\n' not in str(caught.value)


def test_tools_by_http(site, small_demo, tmp_path, canary):
    folder, address = site
    crafted(folder / 'evil.pth', canary)
    cfg = demo_config('vop/vop_demo.py')
    write_checkpoint(folder / 'good.pth', cfg, 0)
    rest = '--work-dir', tmp_path / 'work', *options(small_demo)
    for name, says in (('evil.pth', 'refused'), ('evil.old.pth', 'refused'), ('none.pth', 'downloaded')):
        done = run_tool('tools/test.py', TRAIN, f'{address}/{name}', *rest)
        assert done.returncode == 1 and says in done.stderr and 'Traceback' not in done.stderr, done.stderr
    done = run_tool('tools/test.py', TRAIN, f'{address}/good.pth', *rest)
    assert done.returncode == 0, done.stderr
    assert not canary.exists()


@pytest.fixture(scope='module')
def trained(small_demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    done = run_tool('tools/train.py', TRAIN, '--work-dir', folder,
                    *options(small_demo, **{'train_cfg.max_epochs': 1, 'param_scheduler.0.T_max': 2}))
    assert done.returncode == 0, done.stderr
    return folder


def resume(trained, small_demo, work, change, *flags, **changes):
    """Change the checkpoint of the first epoch, and go on from it."""
    content = torch.load(trained / 'epoch_1.pth', weights_only=True)
    change(content)
    work.mkdir(exist_ok=True)
    torch.save(content, work / 'epoch_1.pth')
    (work / 'last_checkpoint').write_text('work_dirs/somewhere/else/epoch_1.pth')
    return run_tool('tools/train.py', TRAIN, '--work-dir', work, '--resume', *flags,
                    *options(small_demo, **{'train_cfg.max_epochs': 2, 'param_scheduler.0.T_max': 2, **changes}))


def test_a_config_in_a_checkpoint_is_not_run_on_resuming(trained, small_demo, tmp_path, canary):
    """MMEngine executes ``meta['config']``. The folder was moved, too: ``last_checkpoint`` names its old place."""
    done = resume(trained, small_demo, tmp_path / 'work', lambda content: content['meta'].update(
        config=f'x = __import__("os").system("touch {canary}")'))
    assert done.returncode == 0 and not canary.exists(), done.stderr
    assert (tmp_path / 'work' / 'epoch_2.pth').is_file()


def test_what_a_checkpoint_notes_is_not_removed_elsewhere(trained, small_demo, tmp_path):
    """The best and the older checkpoints, which MMEngine removes by the paths and numbers that it finds in there."""
    victim, folder, work = tmp_path / 'best_victim.pth', tmp_path / 'folder', tmp_path / 'work'
    victim.write_text('mine')
    (folder / 'inside').mkdir(parents=True)
    for path in (str(work / '..' / victim.name), str(folder)):
        best = dict(best_ckpt=path, best_score=-1.)
        done = resume(trained, small_demo, work,
                      lambda content, best=best: content['message_hub']['runtime_info'].update(best))
        assert done.returncode == 0 and len(list(work.glob('best_*.pth'))) == 1, done.stderr
        assert victim.read_text() == 'mine' and (folder / 'inside').is_dir()
    done = resume(trained, small_demo, work, lambda content: content['message_hub']['runtime_info'].update(
        keep_ckpt_ids=['/../../best_victim', 1, 2, 3]))
    assert done.returncode == 1 and 'cannot be resumed from' in done.stderr and 'Traceback' not in done.stderr
    assert victim.read_text() == 'mine'
    for ids in ('abc', [None], [-1], [2.5], [True], [10**30], {}):
        content = torch.load(trained / 'epoch_1.pth', weights_only=True)
        content['message_hub']['runtime_info']['keep_ckpt_ids'] = ids
        with pytest.raises(CheckpointError, match='cannot be resumed from'):
            check_resumable(content)
    hook = TrainableCheckpointHook()
    hook.out_dir = str(tmp_path)
    for path in (None, 7, str(folder), 'best_victim.pth', str(tmp_path / 'epoch_1.pth'), str(folder / 'best_1.pth')):
        assert hook._own(path) is None
    assert hook._own(str(victim)) == str(victim)


@pytest.mark.parametrize('change', [
    lambda content: content['meta'].pop('epoch'), lambda content: content['meta'].update(iter='x'),
    lambda content: content['meta'].update(seed='x'), lambda content: content.update(message_hub=[]),
    lambda content: content['message_hub'].update(log_scalars=dict(a=1)), lambda content: content.update(optimizer=3),
    lambda content: content['message_hub'].update(log_scalars=dict(a=dict(values='x', counts=[1], max_length=None)))])
def test_what_can_not_be_resumed_from_is_one_line(trained, small_demo, tmp_path, change):
    done = resume(trained, small_demo, tmp_path / 'work', change)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith('error: ')]) == 1


@pytest.mark.parametrize('change', [lambda state: 3, lambda state: {}, lambda state: {**state, 'more': torch.zeros(1)},
                                    lambda state: {name: value[..., :1].clone() for name, value in state.items()}])
def test_parameters_beside_an_average_are_this_models(trained, small_demo, tmp_path, change):
    """MMEngine leaves out what doesn't fit, and training would go on from where it started."""
    hooks = json.dumps([dict(type='SetEpochHook'), dict(type='TrainableEMAHook', momentum=0.25)])
    done = resume(trained, small_demo, tmp_path / 'work', lambda content: content.update(
        not_averaged=change(dict(content['state_dict']))), custom_hooks=hooks)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    assert re.search('error: .*epoch_1.pth.*(fit this model|not_averaged)', done.stderr), done.stderr


@pytest.mark.parametrize('name', ['optimizer', 'state_dict', 'not_averaged'])
def test_tensors_to_resume_from_are_finite(trained, small_demo, tmp_path, name):
    def change(content):
        tensors = content['state_dict'] if name != 'optimizer' else content['optimizer']['state'][0]
        tensors = content.setdefault(name, dict(tensors)) if name == 'not_averaged' else tensors
        key = next(key for key, value in tensors.items() if value.numel() > 1)
        tensors[key] = torch.full_like(tensors[key], float('nan'))
    done = resume(trained, small_demo, tmp_path / 'work', change)
    assert done.returncode == 1 and f'{name}.' in done.stderr and 'is not finite' in done.stderr, done.stderr


def test_last_checkpoint_names_a_file_of_its_folder(tmp_path):
    work, elsewhere = tmp_path / 'work', tmp_path / 'elsewhere'
    work.mkdir()
    elsewhere.mkdir()
    assert last_checkpoint(work, work) is None
    (work / 'epoch_1.pth').touch()
    (elsewhere / 'epoch_2.pth').touch()
    (work / 'link.pth').symlink_to(elsewhere / 'epoch_2.pth')
    os.mkfifo(work / 'fifo.pth')
    for text in ('epoch_1.pth', f'{work}/epoch_1.pth\n', 'work_dirs/moved/epoch_1.pth', f'{elsewhere}/epoch_1.pth'):
        (work / 'last_checkpoint').write_text(text)
        assert last_checkpoint(work, work) == f'{work}/epoch_1.pth'
    for text in (f'{elsewhere}/epoch_2.pth', '../elsewhere/epoch_2.pth', 'link.pth', 'fifo.pth', '', '.', '..', 'x/..',
                 '/', 'http://127.0.0.1:9/x.pth', 'torchvision://resnet50', 'a\0b', 'x' * 100_000, '\udcff'):
        (work / 'last_checkpoint').write_text(text, errors='surrogateescape')
        with pytest.raises(CheckpointError, match='last_checkpoint is refused') as caught:
            last_checkpoint(work, work)
        assert len(str(caught.value)) < 700 and '\n' not in str(caught.value)
    (work / 'last_checkpoint').write_text('epoch_2.pth')
    assert last_checkpoint(work, elsewhere) == f'{elsewhere}/epoch_2.pth'  # checkpoints are kept in another folder


def test_checkpoints_kept_in_another_folder_are_gone_on_from(trained, small_demo, tmp_path):
    flags = {'default_hooks.checkpoint.out_dir': tmp_path / 'kept', 'param_scheduler.0.T_max': 2}
    for epochs, more in ((1, ()), (2, ('--resume', ))):
        done = run_tool('tools/train.py', TRAIN, '--work-dir', tmp_path / 'work', *more,
                        *options(small_demo, **{'train_cfg.max_epochs': epochs, **flags}))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / 'kept' / 'work' / 'epoch_2.pth').is_file()
    log = ''.join(path.read_text() for path in (tmp_path / 'work').glob('*/*.log'))
    assert 'resumed epoch: 1' in log


def assert_is_safe(runner, theirs):
    """MMEngine's runner is entered through the methods that make it safe, and nothing else enters it."""
    for name in [*METHODS, 'load_or_resume']:
        lines = [kind for kind in runner.__mro__ if name in vars(kind)]
        assert lines.index(SafeLoading) == lines.index(theirs) - 1, (runner, name)


def test_nothing_that_runs_is_left_out():
    assert_is_safe(RetrievalRunner, Runner)
