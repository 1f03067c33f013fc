"""Runs in processes of their own: what is shown of them, and how they fail."""
import json
import os
from functools import partial

import pytest

from vop_mm.engine.run_apart import _new_lines, _new_text, run_in_process


def test_a_line_for_every_epoch_and_evaluation_of_this_run(tmp_path, capsys):
    def log(text, run='now'):
        (tmp_path / run / 'vis_data').mkdir(parents=True, exist_ok=True)
        with (tmp_path / run / 'vis_data/scalars.json').open('a') as file:
            file.write(text)

    log('{"loss": 9.0, "epoch": 1, "step": 1}\n{"t2v/R1": 9.0, "step": 1}\n', 'before')
    lines = _new_lines(tmp_path)

    def shown():
        next(lines)
        return capsys.readouterr().out

    assert shown() == ''
    log('{"loss": 3.0, "epoch": 1, "step": 1}\n{"loss": 2.0, "epoch": 1, "step": 2}\n{"t2v/R1": 50.0, "v2t')
    assert shown() == ''  # the epoch may go on
    log('/R1": 25.0, "step": 1}\n{"loss": 1.0, "epoch": 2, "step": 3}\n')
    assert shown() == '    epoch 1, train: loss 2.000\n    epoch 1, val: t2v R@1 50.0, v2t R@1 25.0\n'
    log('{"loss": 0.5, "epoch": 3, "step": 4}\n')
    assert shown() == '    epoch 2, train: loss 1.000\n'
    metrics = {'t2v/R1': 40.0, 'own_metric': 7.0, 'own_metric/a': 1.0}
    (tmp_path / 'result.json').write_text(json.dumps(dict(metrics=metrics)))
    assert shown() == '    epoch 3, train: loss 0.500\n    test: t2v R@1 40.0, own metric 7.0\n' and shown() == ''


def test_what_a_process_prints_is_shown_and_kept(tmp_path, capsys):
    log = tmp_path / 'log'
    run_in_process(partial(print, 'hello'), log, 'greeting', partial(next, _new_text(log)))
    assert capsys.readouterr().out == log.read_text() == 'hello\n'


@pytest.mark.parametrize(('function', 'says'), [
    (partial(os.mkdir, '/no/such/folder'), 'making it failed: No such file or directory: /no/such/folder'),
    (os.abort, r'making it failed: see .*/log: ')])
def test_a_process_that_fails_says_why(tmp_path, function, says):
    with pytest.raises(RuntimeError, match=says):
        run_in_process(function, tmp_path / 'log', 'making it')
