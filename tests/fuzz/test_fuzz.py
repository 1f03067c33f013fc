"""Some changed inputs of every kind. ``python -m tests.fuzz`` tries more of them."""
import pytest

from tests.fuzz.kinds import MODULES
from tests.tools import run_tool

COUNT = 40


@pytest.fixture(scope='module')
def run():
    """One process makes what inputs start from, once for all kinds."""
    return run_tool('tests/fuzz/__main__.py', '--count', str(COUNT))


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first of them waits for the run
@pytest.mark.parametrize('kind', list(MODULES))
def test_changed_inputs_are_read_rightly_or_refused_in_one_line(run, kind):
    row = next((line.split() for line in run.stdout.splitlines() if line.split()[0] == kind), None)
    assert row is not None, f'{run.stdout[-6000:]}\n{run.stderr[-500:]}'
    _, tried, accepted, _, failures = row[:5]
    assert (int(tried), int(failures)) == (COUNT, 0), run.stdout[-6000:]
    assert int(accepted) > 0  # else all of them are too broken to get anywhere


def test_the_fuzzer_ends_well_where_nothing_failed(run):
    assert run.returncode == 0, f'{run.stdout[-6000:]}\n{run.stderr[-500:]}'
