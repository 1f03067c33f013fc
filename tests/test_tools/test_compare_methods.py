"""Several configs over seeds: runs, table and picture; what is there is not run again."""
import json

import pytest

from tests.forks import fork_runs
from tests.tools import ROOT, run_tool

TOOL = 'tools/analysis_tools/compare_methods.py'
CONFIGS = ['configs/baselines/zero_shot_demo.py', 'configs/vop/vop_demo.py']


@pytest.mark.slow
def test_runs_each_config_with_each_seed_once(demo_folder):
    arguments = [*(ROOT / c for c in CONFIGS), '--out', 'out', '--seeds', '0', '1', '--cfg-options', 'num_frames=3',
                 '--max-epochs']
    done = run_tool(TOOL, *arguments, '2', before=fork_runs, cwd=demo_folder)
    assert done.returncode == 0, done.stderr
    assert 'epoch 2, train: loss' in done.stdout and 'epoch 2, val: t2v R@1' in done.stdout
    tmp_path = demo_folder / 'out'
    results = {}
    for name in ('zero_shot_demo', 'vop_demo'):
        for seed in (0, 1):
            result = json.loads((tmp_path / name / f'seed_{seed}' / 'result.json').read_text())
            assert result['seed'] == seed and result['trainable'] == {'vop_demo': 4096, 'zero_shot_demo': 0}[name]
            assert {'t2v/R1', 'v2t/MnR', 'pair_accuracy'} <= set(result['metrics'])
            results[name, seed] = result
    assert results['vop_demo', 0]['metrics'] != results['vop_demo', 1]['metrics']
    assert results['zero_shot_demo', 0]['metrics'] == results['zero_shot_demo', 1]['metrics']
    table = (tmp_path / 'table.md').read_text()
    assert '| VoP ' in table and '| Zero-shot ' in table and '4,096' in table
    assert (tmp_path / 'comparison.png').stat().st_size > 5000

    before = (tmp_path / 'vop_demo' / 'seed_0' / 'result.json').stat().st_mtime_ns
    again = run_tool(TOOL, *arguments, '2', before=fork_runs, cwd=demo_folder)
    assert again.returncode == 0 and again.stdout.count('already finished: ') == 4
    assert (tmp_path / 'vop_demo' / 'seed_0' / 'result.json').stat().st_mtime_ns == before
    assert (tmp_path / 'table.md').read_text() == table

    # results of another config are not passed off as this one's
    other = run_tool(TOOL, *arguments, '3', before=fork_runs, cwd=demo_folder)
    assert other.returncode == 1 and 'vop_demo/seed_0 contains a run of another version of' in other.stderr
    assert (tmp_path / 'table.md').read_text() == table


def test_a_run_that_fails_says_why(tmp_path):
    done = run_tool(TOOL, CONFIGS[0], '--out', tmp_path, '--cfg-options', 'test_dataloader.dataset.data_root=/no/such',
                    before=fork_runs)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'seed_0 failed' in done.stderr and '/no/such/test.json' in done.stderr
    assert not list(tmp_path.rglob('result.json'))


def test_an_option_that_does_not_fit_says_so(tmp_path):
    done = run_tool(TOOL, CONFIGS[0], '--out', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert f"--cfg-options don't fit {CONFIGS[0]}" in done.stderr
