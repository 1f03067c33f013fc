"""Some changed inputs of every kind. ``python -m tests.fuzz`` tries more of them."""
import pytest

from tests.fuzz.kinds import MODULES
from tests.tools import run_tool

COUNT = 40


@pytest.mark.slow
@pytest.mark.parametrize('kind', list(MODULES))
def test_changed_inputs_are_read_rightly_or_refused_in_one_line(kind):
    done = run_tool('tests/fuzz/__main__.py', '--kind', kind, '--count', str(COUNT))
    assert done.returncode == 0, f'{done.stdout[-6000:]}\n{done.stderr[-500:]}'
    *_, row = done.stdout.splitlines()
    name, tried, accepted, _, failures = row.split()[:5]
    assert (name, int(tried), int(failures)) == (kind, COUNT, 0)
    assert int(accepted) > 0  # else all of them are too broken to get anywhere
