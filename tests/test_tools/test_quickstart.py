"""What tools/quickstart.sh prints at its end; what it runs on the way has tests of its own."""
import re
import shutil
import subprocess

import pytest

from demo.shapes.clips import plan_clips
from tests.tools import ROOT


@pytest.fixture
def clone(tmp_path):
    """The script among tools that do nothing, in a folder where their results are there."""
    (tmp_path / 'tools').mkdir()
    shutil.copy(ROOT / 'tools/quickstart.sh', tmp_path / 'tools')
    (tmp_path / 'tools/_env.sh').write_text('export VIRTUAL_ENV="$PWD/.venv" PATH="$PWD/.venv/bin:$PATH"\n')
    (tmp_path / '.venv/bin').mkdir(parents=True)
    (tmp_path / '.venv/bin/python').write_text('#!/bin/sh\n')
    (tmp_path / '.venv/bin/python').chmod(0o700)
    (tmp_path / 'data/demo/videos').mkdir(parents=True)
    (tmp_path / 'data/demo/videos/test_0000.mp4').touch()
    for name in ('vop_demo', 'vop_f_p_demo'):
        (tmp_path / f'work_dirs/quickstart/{name}/seed_0').mkdir(parents=True)
        (tmp_path / f'work_dirs/quickstart/{name}/seed_0/best_1.pth').touch()
    return tmp_path


@pytest.mark.parametrize('active', [False, True])
def test_what_it_prints_runs_in_the_shell_that_it_was_called_from(clone, active):
    """Outside of it the environment that it has made is not active."""
    env = dict(PATH='/usr/bin:/bin', **(dict(VIRTUAL_ENV=str(clone / '.venv')) if active else {}))
    done = subprocess.run(['bash', 'tools/quickstart.sh'], cwd=clone, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    clip = clone / 'work_dirs/quickstart/test_clips/test_0000.mp4'
    assert clip.is_file() and not clip.is_symlink()  # the web page serves no links that lead out of the folder
    python = 'python' if active else '.venv/bin/python'
    printed = re.findall(r'^  (\S*python) (tools/|demo/)', done.stdout, re.MULTILINE)
    assert len(printed) == 4 and {name for name, _ in printed} == {python}


def test_its_query_is_a_caption_of_its_test_clips():
    query, = re.findall(r'tools/search.py \$out/index "(.+)"', (ROOT / 'tools/quickstart.sh').read_text())
    annotations, _ = plan_clips(1, dict(train=480, dev=100, test=300))  # as it makes them by default
    assert sum(query in entry['captions'] for entry in annotations['test']['data_list']) == 1
