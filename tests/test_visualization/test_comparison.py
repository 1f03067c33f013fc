"""Tables and the picture of several methods."""
import csv
import io

import cv2
import pytest

from vop_mm.visualization import comparison
from vop_mm.visualization.comparison import draw_comparison, summarize, write_tables


def outcome(method, seed, r1, trainable=1000, **metrics):
    return dict(method=method, config=f'configs/{method}.py', seed=seed, trainable=trainable, checkpoint_bytes=4000,
                train_seconds=10. + seed, test_seconds=1., checkpoint='x.pth',
                metrics={'t2v/R1': r1, 'v2t/R1': r1 + 1, **metrics})


def test_mean_and_deviation_over_seeds():
    row = summarize([outcome('VoP', 0, 10.), outcome('VoP', 1, 14.), outcome('VoP', 2, 12.)])
    assert row['t2v/R1'] == (12., 2.) and row['v2t/R1'] == (13., 2.)
    assert row['seconds'] == 11. and row['seeds'] == [0, 1, 2]


def test_a_metric_that_a_run_lacks_is_left_out():
    row = summarize([outcome('VoP', 0, 10., pair_accuracy=50.), outcome('VoP', 1, 14.)])
    assert 'pair_accuracy' not in row


def test_tables_hold_every_row(tmp_path):
    rows = [summarize([outcome('zero-shot', 0, 5., trainable=0)]),
            summarize([outcome('VoP', s, 10. + s, pair_accuracy=50.) for s in (0, 1)])]
    text = write_tables(rows, tmp_path)
    assert (tmp_path / 'table.md').read_text() == text
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()]
    assert lines[0][:3] == ['method', 'parameters', 't2v R@1']
    assert lines[2][:3] == ['zero-shot', '0', '5.0 ± 0.0'] and lines[3][:3] == ['VoP', '1,000', '10.5 ± 0.7']
    assert lines[2][lines[0].index('pair accuracy')] == '-'
    assert len({len(line) for line in text.splitlines()}) == 1  # aligned
    table = list(csv.DictReader(io.StringIO((tmp_path / 'table.csv').read_text())))
    assert table[1]['method'] == 'VoP' and float(table[1]['t2v/R1 mean']) == 10.5
    assert table[1]['seeds'] == '2' and table[0]['pair_accuracy mean'] == ''


def test_kinds_of_pairs_have_a_table_of_their_own(tmp_path):
    kinds = {'pair_accuracy': 60., 'pair_accuracy/move': 50., 'pair_accuracy/turn': 70.}
    rows = [summarize([outcome('VoP', s, 10., **kinds) for s in (0, 1)]), summarize([outcome('Full', 0, 9.)])]
    first, second = write_tables(rows, tmp_path).split('\n\n')
    assert 'move' not in first
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in second.splitlines()]
    assert lines[0] == ['pair accuracy by kind', 'move', 'turn']
    assert lines[2] == ['VoP', '50.0 ± 0.0', '70.0 ± 0.0'] and lines[3] == ['Full', '-', '-']
    table = list(csv.DictReader(io.StringIO((tmp_path / 'table.csv').read_text())))
    assert table[0]['pair_accuracy/turn mean'] == '70.0'


@pytest.mark.parametrize('zero_shot_only', [False, True])
def test_the_picture_shows_something(tmp_path, zero_shot_only):
    rows = [summarize([outcome('zero-shot', 0, 5., trainable=0)])]
    if not zero_shot_only:
        rows += [summarize([outcome('VoP', 0, 10.)]), summarize([outcome('Full', 0, 9., trainable=10**6)])]
    draw_comparison(rows, tmp_path / 'c.png')
    picture = cv2.imread(str(tmp_path / 'c.png'))
    assert picture.shape[0] > 300 and picture.std() > 5
    # VoP's point is red, others' are blue
    red = (picture[..., 2].astype(int) - picture[..., 0] > 100).sum()
    assert (red > 20) == (not zero_shot_only)


def test_names_do_not_cover_each_other(tmp_path, monkeypatch):
    from matplotlib.text import Text
    names, boxes, spread = [f'Adapter^{i}' for i in range(5)], [], comparison._spread

    def watch(labels, axes, renderer):
        for where in (before, boxes):
            where.extend(Text.get_window_extent(label, renderer) for label in labels)
            spread(labels, axes, renderer)

    before = []
    monkeypatch.setattr(comparison, '_spread', watch)
    draw_comparison([summarize([outcome(name, 0, 20.)]) for name in names], tmp_path / 'c.png')
    assert before[0].overlaps(before[1])  # all points are the same
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
