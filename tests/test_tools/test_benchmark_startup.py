"""benchmark.py startup: what is compared with what, by clocks that are known, and the real thing."""
import argparse
import json

import pytest

from tests.tools import run_tool
from tools.analysis_tools.benchmarks import startup

BENCHMARK = 'tools/analysis_tools/benchmark.py'


def test_imports_are_counted_beyond_torch_and_help_as_a_whole(monkeypatch):
    times = {'import torch': [2, 9, 2.5], 'vop_mm': [2.1, 9.5, 2.6], 'vop_mm.engine.experiment': [6, 13, 6.5],
             'tools/train.py': [0.2, 0.4, 0.3], 'tools/test.py': [3, 3, 9]}
    monkeypatch.setattr(startup, 'measure', lambda ways, *args, **kwargs: {name: times[name] for name in ways})
    rows = {row['what']: row for row in startup.run(argparse.Namespace(repeat=3))}
    assert {what: round(row['value'], 6) for what, row in rows.items()} == {
        'import torch': 2.5, 'import vop_mm, beyond torch': 0.1, 'import vop_mm.engine.experiment, beyond torch': 4,
        'tools/train.py --help': 0.3, 'tools/test.py --help': 3}
    assert [row.get('met') for row in rows.values()] == [None, True, False, True, False]


def test_runs_every_command_in_a_process_of_its_own(tmp_path):
    done = run_tool(BENCHMARK, 'startup', '--repeat', '1', '--json', tmp_path / 'rows.json')
    assert done.returncode == 0, done.stderr
    rows = {row['what']: row for row in json.loads((tmp_path / 'rows.json').read_text())['rows']}
    assert len(rows) == 5 and all(what in done.stdout and row['figure'] in done.stdout for what, row in rows.items())
    # --help comes without torch
    assert 0 < rows['tools/train.py --help']['value'] < rows['import torch']['value']


def test_no_rounds_are_refused():
    done = run_tool(BENCHMARK, 'startup', '--repeat', '0')
    assert done.returncode == 1 and 'at least 1' in done.stderr.splitlines()[0]


@pytest.mark.parametrize('module', ['vop_mm', 'vop_mm.utils.cli', 'demo.shapes'])
def test_what_every_tool_imports_brings_no_torch(module):
    import subprocess
    import sys
    code = f'import sys, {module}; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
