"""Checking, training and evaluating a data set of which 5% of the videos are broken."""
import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.broken_videos import KINDS, make_broken_dataset
from tests.test_tools.test_train import TRAIN, options
from tests.tools import run_tool

REASONS = dict(truncated='damaged, truncated, or not the format', cut_off='the file is damaged or truncated',
               garbage='not a video of a known container', playlist='not a video of a known container',
               audio_only='no video stream')


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """The data set's folder, and its broken files by kind."""
    folder = tmp_path_factory.mktemp('data') / 'broken'
    return folder, make_broken_dataset(folder)


def settings(folder, **changes):
    """One epoch with workers; what can't be decoded is put up with."""
    skip = {f'{split}_dataloader.dataset.on_unreadable': 'skip' for split in ('val', 'test')}
    workers = {f'{split}_dataloader.num_workers': 2 for split in ('train', 'test')}
    return options(folder, **{**skip, **workers, 'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1,
                              'param_scheduler.0.T_max': 1, 'train_dataloader.batch_size': 20,
                              'custom_hooks.1.max_share': 0.1, **changes})


def warnings(work_dir) -> list[str]:
    log, = Path(work_dir).glob('*/*.log')
    return [line for line in log.read_text().splitlines() if ' - WARNING - ' in line]


@pytest.fixture(scope='module')
def trained(dataset, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('trained')
    done = run_tool('tools/train.py', TRAIN, '--work-dir', work_dir, *settings(dataset[0]))
    assert done.returncode == 0, done.stderr[-3000:]
    return work_dir


def test_training_names_every_broken_file_once_and_goes_on(dataset, trained):
    lines = warnings(trained)
    for kind in KINDS:
        reason, = [line.partition("can't decode ")[2] for line in lines if "can't decode " in line
                   and dataset[1][kind] in line]
        assert reason.startswith(f'{dataset[1][kind]}: ') and REASONS[kind] in reason
    assert any('5 of 100 training samples of epoch 1 were replaced' in line for line in lines)
    assert (trained / 'epoch_1.pth').is_file()


def test_evaluation_leaves_the_broken_ones_out(dataset, trained, tmp_path):
    done = run_tool('tools/test.py', TRAIN, trained / 'epoch_1.pth', '--work-dir', tmp_path, '--dump',
                    tmp_path / 'embeddings.npz', *settings(dataset[0]))
    assert done.returncode == 0, done.stderr[-3000:]
    left_out, = [line for line in warnings(tmp_path) if 'videos were left out of the evaluation' in line]
    assert '5 videos' in left_out and all(path in left_out for path in dataset[1].values())
    bad = {Path(path).stem for path in dataset[1].values()}
    evaluated = np.load(tmp_path / 'embeddings.npz')['video_ids'].tolist()
    assert sorted(evaluated) == sorted({f'v{i}' for i in range(100)} - bad)


def test_the_check_reports_them_and_leaves_the_others(dataset, tmp_path):
    folder, broken = dataset
    done = run_tool('tools/data/check_dataset.py', folder / 'train.json', '--video-dir', folder / 'videos', '--report',
                    tmp_path / 'report.csv', '--quarantine', tmp_path / 'train.json', '--workers', '2')
    assert done.returncode == 3 and '100 clips, 95 fit, 5 not' in done.stdout, done.stderr
    with (tmp_path / 'report.csv').open(newline='') as file:
        rows = {row['video']: row for row in csv.DictReader(file)}
    for kind in KINDS:
        row = rows[Path(broken[kind]).name]
        assert row['problem'] == dict(audio_only='no video').get(kind, 'unreadable')
        assert REASONS[kind] in row['detail']
    left = {entry['video'] for entry in json.loads((tmp_path / 'train.json').read_text())['data_list']}
    assert left == {row['video'] for row in rows.values()} - {Path(path).name for path in broken.values()}
