"""What a killed run had half written, the next one removes: one owner for all temporary files."""
import os
import pathlib
import shutil
import signal

import pytest

from tests.checkpoints import demo_config, write_checkpoint
from tests.raw_annotations import write_msrvtt
from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool

ZERO_SHOT = 'configs/baselines/zero_shot_demo.py'


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def before_a_file_gets_its_name():
    """Everything is written, nothing renamed."""
    os.fsync = die


def before_a_folder_gets_its_name():
    pathlib.Path.rename = die


def converter(data, out):
    (out / 'source').mkdir(exist_ok=True)
    write_msrvtt(out / 'source')
    return ['tools/dataset_converters/msrvtt.py', out / 'source', out / 'annotations']


def publishing(data, out):
    checkpoint = write_checkpoint(out / 'vop.pth', demo_config('vop/vop_demo.py'), seed=0)
    return ['tools/model_converters/publish_model.py', checkpoint, out / 'published.pth']


def compressing(data, out):
    if shutil.which('ffmpeg') is None:
        pytest.importorskip('imageio_ffmpeg', reason='no ffmpeg on PATH and no imageio-ffmpeg')
    return ['tools/data/compress_videos.py', data / 'videos', out / 'copies']


TOOLS = {
    'converter': (converter, before_a_file_gets_its_name),
    'report': (lambda data, out: ['tools/data/check_dataset.py', data / 'dev.json', '--video-dir', data / 'videos',
                                  '--report', out / 'report.csv'], before_a_file_gets_its_name),
    'checkpoint': (publishing, before_a_file_gets_its_name),
    'copies': (compressing, before_a_file_gets_its_name),
    'picture': (lambda data, out: ['tools/visualizations/browse_dataset.py', TRAIN, out / 'clips.png', *options(data)],
                before_a_file_gets_its_name),
    'embeddings': (lambda data, out: ['tools/test.py', ZERO_SHOT, '--work-dir', out / 'work', '--dump', out / 'a.npz',
                                      '--cfg-options', f'test_dataloader.dataset.data_root={data}'],
                   before_a_file_gets_its_name),
    'parameters': (lambda data, out: ['tools/analysis_tools/count_parameters.py', ZERO_SHOT, '--json', out / 'a.json'],
                   before_a_file_gets_its_name),
    'training': (lambda data, out: ['tools/train.py', TRAIN, '--work-dir', out / 'work', *options(
        data, **{'train_cfg.max_epochs': 1})], before_a_file_gets_its_name),
    'demo': (lambda data, out: ['tools/data/make_demo.py', out / 'demo', '--num-train', '2', '--num-dev', '2',
                                '--num-test', '2', '--workers', '1'], before_a_folder_gets_its_name),
}


@pytest.mark.parametrize('name', TOOLS)
def test_the_next_run_removes_them(name, small_demo, tmp_path):
    command, moment = TOOLS[name]
    command = command(small_demo, tmp_path)
    killed = run_tool(*command, before=moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(tmp_path.rglob('.vop_mm.*.tmp')), 'it was killed before it wrote'
    done = run_tool(*command)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob('.*.tmp')) == []


def test_a_demo_that_was_killed_after_the_last_step_is_cleaned_up_too(small_demo, tmp_path):
    """There is nothing to do for the next run but this."""
    command = ['tools/data/make_demo.py', tmp_path / 'demo', '--num-train', '2', '--num-dev', '2', '--num-test', '2',
               '--workers', '1']
    killed = run_tool(*command, before=before_a_folder_is_removed)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(os.listdir(tmp_path)) == 2
    done = run_tool(*command)
    assert done.returncode == 0 and 'nothing to do' in done.stdout, done.stderr
    assert os.listdir(tmp_path) == ['demo']


def before_a_folder_is_removed():
    shutil.rmtree = die
