"""tools/test.py: what it logs and writes says what was evaluated."""
import json
import re

import numpy as np

from tests.tools import run_tool

CONFIG = 'configs/baselines/zero_shot_demo.py'


def of_demo(folder):
    return ['--cfg-options', f'test_dataloader.dataset.data_root={folder / "data/demo"}',
            'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']


def test_figures_come_with_what_they_are_of(demo_folder):
    out = demo_folder / 'out.json'
    bank = run_tool('tools/test.py', CONFIG, '--work-dir', demo_folder / 'a', '--dump', demo_folder / 'bank.npz',
                    *of_demo(demo_folder), 'test_dataloader.dataset.ann_file=train.json')
    assert bank.returncode == 0, bank.stderr
    with np.load(demo_folder / 'bank.npz') as arrays:
        assert (str(arrays['dataset']), str(arrays['split'])) == ('demo', 'train')
    done = run_tool('tools/test.py', CONFIG, '--work-dir', demo_folder / 'b', '--json', out, '--postprocess', 'dsl',
                    'qbnorm', '--query-bank', demo_folder / 'bank.npz', '--bootstrap', '20', *of_demo(demo_folder))
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert {key: written[key] for key in ('dataset', 'split', 'protocol', 'num_texts', 'num_videos')} == dict(
        dataset='demo', split='test', protocol='1:1', num_texts=13, num_videos=13)
    assert written['t2v_dsl/R1_low'] <= written['t2v_dsl/R1'] <= written['t2v_dsl/R1_high']
    assert 'v2t_qbnorm/R1' in written
    line = re.search(r'Epoch\(test\) (.*)', done.stdout + done.stderr)[1]
    assert 'demo test, 1:1, 13 captions, gallery of 13 videos  ' in line
    assert f't2v_dsl/R1: {written["t2v_dsl/R1"]:.4f}' in line


def test_bad_options(demo_folder):
    for arguments, says in ((['--postprocess', 'qbnorm', '--query-bank', 'no.npz'], 'query bank not found: no.npz'),
                            (['--bootstrap', '-1'], 'bootstrap must be at least 0')):
        done = run_tool('tools/test.py', CONFIG, '--work-dir', demo_folder / 'w', *arguments, *of_demo(demo_folder))
        assert done.returncode == 1 and says in done.stderr and 'Traceback' not in done.stderr
