"""A small demo that the tests of the tools share."""
import pytest

from tests.tools import run_tool


@pytest.fixture(scope='session')
def small_demo(tmp_path_factory):
    """24 training, 12 dev and 13 test clips, as tools/data/make_demo.py makes them. Not to be changed."""
    folder = tmp_path_factory.mktemp('data') / 'demo'
    done = run_tool('tools/data/make_demo.py', folder, '--num-train', '24', '--num-dev', '12', '--num-test', '13')
    assert done.returncode == 0, done.stderr
    return folder
