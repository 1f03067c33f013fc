"""A container's 64 MB of shared memory: training starts, or says what is missing."""
import shutil
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from tests.tools import ROOT
from vop_mm.engine import shared_memory
from vop_mm.engine.shared_memory import check_shared_memory

_UNSHARE = ['unshare', '--mount', 'sh', '-c']


def can_mount() -> bool:
    command = [*_UNSHARE, 'mount -t tmpfs -o size=64m tmpfs /dev/shm']
    return shutil.which('unshare') is not None and subprocess.run(command, capture_output=True).returncode == 0


def loader(workers, size=1_000_000, batch=4, **kwargs):
    items = [dict(inputs=torch.zeros(size, dtype=torch.uint8), more=[torch.zeros(3)]) for _ in range(9)]
    return DataLoader(items, batch_size=batch, num_workers=workers, **kwargs)


@pytest.mark.parametrize('workers, free, fits', [
    (0, 0, True), (2, 21_000_000, True), (2, 19_000_000, False), (4, 21_000_000, False), (4, 37_000_000, True)])
def test_room_for_what_workers_may_hold(monkeypatch, workers, free, fits):
    """Two batches of 4 MB for each worker, and one that is being used."""
    class Status:
        f_bavail, f_frsize = free // 1000, 1000

    monkeypatch.setattr(shared_memory.os, 'statvfs', lambda folder: Status)
    if fits:
        check_shared_memory(loader(workers))
    else:
        with pytest.raises(ValueError, match=f'the {workers} workers .* has {free / 1e6:.0f} MB left: .*--shm-size=2g'):
            check_shared_memory(loader(workers))


def test_processes_of_one_machine_share_it(monkeypatch):
    class Status:
        f_bavail, f_frsize = 41_000, 1000

    monkeypatch.setattr(shared_memory.os, 'statvfs', lambda folder: Status)
    check_shared_memory(loader(2))
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    with pytest.raises(ValueError, match='may fill 80 MB'):
        check_shared_memory(loader(2))


@pytest.mark.skipif(not can_mount(), reason='needs to mount a small /dev/shm')
@pytest.mark.parametrize('workers, trains', [(2, True), (12, False)])
def test_training_in_64_mb(small_demo, tmp_path, workers, trains):
    """12 frames of 40 x 40 in batches of 48: 2.8 MB each."""
    options = [f'data_root={small_demo}/', 'train_dataloader.batch_size=48', 'train_cfg.max_epochs=1',
               f'train_dataloader.num_workers={workers}', 'val_dataloader.num_workers=1']
    command = (f'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec {sys.executable} tools/train.py '
               f'configs/vop/vop_demo.py --work-dir {tmp_path} --cfg-options {" ".join(options)}')
    done = subprocess.run([*_UNSHARE, command], cwd=ROOT, capture_output=True, text=True, timeout=250)
    if trains:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1 and '--shm-size=2g' in done.stderr, done.stderr
        assert done.stderr.count('error: ') == 1 and 'Traceback' not in done.stderr
