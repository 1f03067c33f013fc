"""What all tests start from: one thread, the same random numbers, and everything registered under this scope."""
import gc
import os
import signal
import tempfile

import numpy as np
import pytest
import torch

from tests.tools import ROOT, run_tool
from vop_mm.utils import register_all_modules

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell: tools would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other
register_all_modules()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Before fixtures are made."""
    seed()


def pytest_runtest_call():
    """A test sees the same numbers with those of its fixtures that are there already."""
    seed()


def seed():
    """So that a test that draws and forgot to seed fails always or never."""
    torch.manual_seed(0)
    np.random.seed(0)


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: at the end no process waits for one of them."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What is imported stays: garbage need not be looked for in it again, here and in processes forked from here."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope='session')
def small_demo(tmp_path_factory):
    """24 training, 12 dev and 13 test clips, as tools/data/make_demo.py makes them. Not to be changed."""
    folder = tmp_path_factory.mktemp('data') / 'demo'
    done = run_tool('tools/data/make_demo.py', folder, '--num-train', '24', '--num-dev', '12', '--num-test', '13')
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def demo_folder(small_demo, tmp_path):
    """A folder to run in, where the demo configs find their data and the mini CLIP."""
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'demo').symlink_to(small_demo)
    (tmp_path / 'demo').symlink_to(ROOT / 'demo')
    return tmp_path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where temporary files go; nothing is left there by any test."""
    folder = tmp_path / 'temporary'
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    yield folder
    # torch's compiler keeps a cache where temporary files were when it was imported
    assert [name for name in os.listdir(folder) if not name.startswith('torchinductor_')] == []
