"""The search of learning rates: its rule, and a run of it that leaves the test split alone."""
import json
import re

import pytest

from tests.forks import fork_runs
from tests.tools import ROOT, run_tool
from tools.analysis_tools.search_learning_rate import best_rate, climb

TOOL = 'tools/analysis_tools/search_learning_rate.py'


@pytest.mark.parametrize('start, peak, tried, chosen', [
    (8, 8, {4, 8, 16}, 8),  # the middle is best: no more than three runs
    (8, 64, {4, 8, 16, 32, 64, 128}, 64),  # upwards until one beyond the best is worse
    (8, 1, {16, 8, 4, 2, 1, 0.5}, 1),  # and downwards
    (8, 4096, {4, 8, 16, 32, 64, 128, 256, 512}, 512),  # until the runs are used up
])
def test_rates_are_tried_in_the_direction_of_the_best(start, peak, tried, chosen):
    runs = []

    def score(rate):
        runs.append(rate)
        return -abs(rate - peak)

    scores = climb(score, start, 8)
    assert set(scores) == tried and len(runs) == len(tried)  # none twice
    assert best_rate(scores) == chosen


def test_of_equal_rates_the_lowest_is_chosen():
    assert best_rate({4: 1.0, 2: 3.0, 8: 3.0}) == 2


@pytest.mark.slow
def test_the_table_says_what_the_runs_reached_on_the_dev_split(demo_folder):
    arguments = [ROOT / 'configs/vop/vop_demo.py', '--out', 'out', '--epochs', '1', '--max-runs', '3', '--cfg-options']
    data = demo_folder / 'data' / 'demo'
    (demo_folder / 'no_test').mkdir()
    for file in data.iterdir():  # reading the test split would fail
        if file.name != 'test.json':
            (demo_folder / 'no_test' / file.name).symlink_to(file.resolve())
    options = [f'{split}_dataloader.dataset.data_root=no_test' for split in ('train', 'val')]
    done = run_tool(TOOL, *arguments, *options, 'test_dataloader.dataset.data_root=/no/such', 'num_frames=3',
                    before=fork_runs, cwd=demo_folder)
    assert done.returncode == 0, done.stderr
    out = demo_folder / 'out'
    row = re.search(r'\| vop_demo \| (.*) \| (\S+) \|', (out / 'learning_rates.md').read_text())
    table = dict(pair.split(': ') for pair in row[1].split(', '))
    sums = {}
    for rate in table:
        dev = json.loads((out / 'vop_demo' / f'lr_{rate}' / 'result.json').read_text())['dev']
        sums[rate] = sum(dev[f'{way}/R{k}'] for way in ('t2v', 'v2t') for k in (1, 5, 10))
    assert table == {rate: f'{value:.0f}' for rate, value in sums.items()} and len(table) == 3
    assert row[2] == min((r for r in sums if sums[r] == max(sums.values())), key=float)


def test_a_config_without_a_rate_is_refused(tmp_path):
    done = run_tool(TOOL, 'configs/baselines/zero_shot_demo.py', '--out', tmp_path / 'out')
    assert done.returncode == 1 and 'has no optim_wrapper.optimizer.lr' in done.stderr
    assert not (tmp_path / 'out').exists()
