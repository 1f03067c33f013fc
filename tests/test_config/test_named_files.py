"""Files that were named are looked for before anything is downloaded or built."""
import os
import re
import subprocess
import sys

import pytest

from tests.test_tools.test_bad_input import assert_one_line
from tests.tools import ROOT, run_tool
from vop_mm.apis import VideoSearcher, init_model
from vop_mm.config import read_config
from vop_mm.config.named_files import require_files

# its CLIP weights are a tag: they would be downloaded, which tests don't
REAL = 'configs/vop/vop_f_p_msrvtt.py'


@pytest.fixture
def no_download(monkeypatch, tmp_path):
    """A cache without weights, and a network that refuses at once and loudly."""
    monkeypatch.setenv('HF_HOME', str(tmp_path / 'hub'))
    for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')


def arguments(name, folder, work_dir):
    """Tools with a file that isn't there, and what they are to say."""
    data = ['--cfg-options', f'data_root={folder}']
    return {
        'test': (['tools/test.py', REAL, 'no/c.pth', '--work-dir', work_dir, *data], 'checkpoint not found: no/c.pth'),
        'resume': (['tools/train.py', REAL, '--resume', 'no/c.pth', '--work-dir', work_dir, *data],
                   'checkpoint not found: no/c.pth'),
        'load_from': (['tools/train.py', REAL, '--work-dir', work_dir, *data, 'load_from=no/c.pth'],
                      'checkpoint not found: no/c.pth'),
        'train annotation': (['tools/train.py', REAL, '--work-dir', work_dir, *data],
                             f'{folder}/train_9k.json: no such annotation file'),
        'test annotation': (['tools/test.py', 'configs/baselines/zero_shot_msrvtt.py', '--work-dir', work_dir, *data],
                            f'{folder}/test.json: no such annotation file'),
        'query bank': (['tools/test.py', 'configs/baselines/zero_shot_msrvtt.py', '--work-dir', work_dir,
                        '--query-bank', 'no.npz', '--postprocess', 'qbnorm', *data], 'query bank not found: no.npz'),
        'index_videos': (['tools/index_videos.py', folder, work_dir, '--config', REAL, '--checkpoint', 'no/c.pth'],
                         'checkpoint not found: no/c.pth'),
        'extract_features': (['tools/extract_features.py', folder, work_dir, '--config', REAL, '--checkpoint',
                              'no/c.pth'], 'checkpoint not found: no/c.pth'),
        'export_onnx': (['tools/deployment/export_onnx.py', REAL, 'no/c.pth', work_dir],
                        'checkpoint not found: no/c.pth'),
    }[name]


@pytest.mark.parametrize('name', ['test', 'resume', 'load_from', 'train annotation', 'test annotation', 'query bank',
                                  'index_videos', 'extract_features', 'export_onnx'])
def test_tools(name, tmp_path, no_download):
    (tmp_path / 'data').mkdir()
    command, says = arguments(name, str(tmp_path / 'data'), str(tmp_path / 'work'))
    done = run_tool(*command)
    assert_one_line(done, says)
    assert 'download' not in done.stdout + done.stderr


def test_the_api(no_download, tmp_path):
    with pytest.raises(FileNotFoundError, match='checkpoint not found: no.pth'):
        init_model(REAL, 'no.pth')
    with pytest.raises(FileNotFoundError, match='checkpoint not found: no.pth'):
        VideoSearcher(REAL, {'a': 'no.pth'})


def test_every_split_that_will_be_read(small_demo, tmp_path):
    cfg = read_config('configs/vop/vop_demo.py', {'data_root': str(small_demo),
                                                  'test_dataloader.dataset.ann_file': 'no.json'})
    require_files(cfg, ['train', 'val'])
    with pytest.raises(ValueError, match=re.escape(f'{small_demo}/no.json: no such annotation file')):
        require_files(cfg, ['train', 'val', 'test'])
    with pytest.raises(FileNotFoundError, match='CLIP weights not found: no/clip.pt'):
        require_files(read_config(cfg, {'model.backbone.weights': 'no/clip.pt'}))
    with pytest.raises(FileNotFoundError, match='vocabulary not found: no.txt'):
        require_files(read_config('configs/vop/vop_demo.py', {
            'data_root': str(small_demo), 'tokenizer.vocab': 'no.txt'}), ['val'])
    hub = {'data_root': str(small_demo), 'tokenizer': dict(_delete_=True, type='HFTokenizer', name='someone/tokenizer')}
    require_files(read_config('configs/vop/vop_demo.py', hub), ['val'])
    with pytest.raises(FileNotFoundError, match='tokenizer not found: ./none is no folder'):
        require_files(read_config('configs/vop/vop_demo.py', {**hub, 'tokenizer.name': './none'}), ['val'])


@pytest.mark.parametrize(('arguments', 'says'), [
    (['tools/train.py', 'no.py'], 'config not found: no.py'),
    (['tools/train.py', REAL, '--resume', 'no.pth'], 'checkpoint not found: no.pth'),
    (['tools/test.py', REAL, 'no.pth'], 'checkpoint not found: no.pth'),
    (['tools/search.py', 'no', 'x'], 'no search index: no'),
    (['tools/test.py', REAL, 'README.md', '--dump', 'no/x.npz'], 'no such folder'),
    (['tools/index_videos.py', 'docs', 'x', '--config', REAL, '--checkpoint', 'no.pth'], 'not found: no.pth'),
    (['tools/extract_features.py', 'no', 'x', '--config', REAL], 'video folder not found: no'),
    (['tools/data/cache_frames.py', 'no.py', '--out', 'x'], 'config not found: no.py'),
    (['tools/index_videos.py', 'no', 'x', '--config', REAL], 'video folder not found: no'),
    (['tools/data/check_dataset.py', 'no.json', '--video-dir', 'docs'], 'no.json: no such annotation file'),
    (['tools/data/check_dataset.py', 'tests/data/retrieval_metrics.json', '--video-dir', 'no'],
     'video folder not found: no'),
    (['tools/analysis_tools/count_parameters.py', REAL, 'no.py'], 'config not found: no.py'),
    (['tools/analysis_tools/eval_similarity.py', 'no.npz'], 'no such file: no.npz'),
    (['tools/visualizations/browse_dataset.py', 'no.py', 'x.png'], 'config not found: no.py'),
    (['tools/model_converters/publish_model.py', 'no.pth', 'x.pth'], 'checkpoint not found: no.pth'),
    (['tools/model_converters/modelscope_to_vop.py', 'no', 'x.pth'], 'no lacks'),
    (['tools/deployment/export_onnx.py', REAL, 'no.pth', 'x'], 'checkpoint not found: no.pth')])
def test_a_missing_file_is_said_before_libraries_are_loaded(tmp_path, arguments, says):
    """Which takes seconds: here it fails."""
    (tmp_path / 'torch.py').write_text('raise RuntimeError("torch was imported")\n')
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60,
                          env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{ROOT}'})
    assert_one_line(done, says)
