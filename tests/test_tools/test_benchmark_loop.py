"""benchmark.py loop: what is read out of a trace, on hand-made ones with known times, and the loop on small clips."""
import json
import warnings
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from tests.tools import run_tool
from tools.analysis_tools.benchmarks import loop

BENCHMARK = 'tools/analysis_tools/benchmark.py'
DEMO = 'configs/vop/vop_demo.py'
SMALL = ['--steps', '2', '--batch-size', '2']
OPTIONS = ['--cfg-options', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']


def event(name, category, start, end):
    """Milliseconds in, microseconds in the trace."""
    return dict(ph='X', cat=category, name=name, ts=5e6 + 1000 * start, dur=1000 * (end - start))


def trace():
    """Two steps of 100 ms, each behind 10 ms of waiting for data; the GPU goes on for 20 ms after the second."""
    events = []
    for start in (0, 110):
        events += [
            event('waiting for data', 'user_annotation', start, start + 10),
            event('training step', 'user_annotation', start + 10, start + 110),
            event('training step', 'gpu_user_annotation', start + 15, start + 130),  # no work
            event('aten::mm', 'cpu_op', start + 12, start + 40),
            event('autograd::engine::evaluate_function: MmBackward0', 'cpu_op', start + 50, start + 70),
            event('Optimizer.step#AdamW.step', 'user_annotation', start + 75, start + 85),
            event('gemm', 'kernel', start + 30, start + 60),
            event('elementwise', 'kernel', start + 50, start + 100),  # on another stream, at the same time
            event('tiny', 'kernel', start + 70, start + 80),
            event('Memcpy HtoD (Pinned -> Device)', 'gpu_memcpy', start + 10, start + 15)]
    events.append(event('gemm', 'kernel', 220, 240))
    return dict(traceEvents=[*reversed(events), dict(ph='M', name='process_name'), dict(ph='i', name='mark', ts=1)])


def test_a_trace_is_sorted_out():
    found = {row: [(a - 5000, b - 5000) for a, b in intervals] for row, intervals in loop.read_trace(trace()).items()}
    assert found == {
        'waiting for data': [(0, 10), (110, 120)], 'step': [(10, 110), (120, 220)],
        'of it backward': [(50, 70), (160, 180)], 'of it optimizer': [(75, 85), (185, 195)],
        'GPU: kernels': [(30, 60), (50, 100), (70, 80), (140, 170), (160, 210), (180, 190), (220, 240)]}


@pytest.mark.parametrize(('kernels', 'share'), [
    ([], 0), ([(0, 10)], 1), ([(-5, 10)], 1), ([(2, 4), (3, 6)], 0.4), ([(2, 4), (4, 6)], 0.4), ([(1, 9), (3, 4)], 0.8),
    ([(-3, 1), (8, 10)], 0.3), ([(5, 20)], 0.75), ([(0, 10)] * 3, 1)])
def test_the_gpu_is_busy_while_any_kernel_runs_up_to_the_end_of_all_work(kernels, share):
    timeline = {'waiting for data': [(0, 1)], 'step': [(1, 10)], 'GPU: kernels': kernels}
    assert loop.gpu_busy(timeline) == pytest.approx(share)
    assert loop.gpu_busy(loop.read_trace(trace())) == pytest.approx((70 + 70 + 20) / 240)


def test_draws_what_a_gpu_did(tmp_path):
    loop.draw(loop.read_trace(trace()), tmp_path / 'a.png', 'made up')
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(('kernels', 'met'), [([(1, 100)], True), ([(10, 90)], False)])
def test_targets_for_a_gpu(kernels, met):
    measured = SimpleNamespace(step_time=0.05, wait_time=0.001, gpu='some GPU', waits=['a.py:1'] * (1 if met else 2))
    timeline = {'waiting for data': [(0, 1)], 'step': [(1, 100)], 'GPU: kernels': kernels}
    rows = {row['what']: row for row in loop.rows_of(measured, timeline, 20)}
    busy, reads = (rows[what] for what in ('share of the time in which the GPU is busy',
                                           'reads of the device in 20 steps with one log'))
    assert busy['met'] is met and busy['value'] == pytest.approx((kernels[0][1] - kernels[0][0]) / 100)
    assert reads['met'] is met and reads['value'] == len(measured.waits)
    assert rows['share of a step not spent waiting for data']['value'] == pytest.approx(0.98)


def test_what_waits_for_the_gpu_in_a_timed_step_is_named(monkeypatch, tmp_path):
    from tools.analysis_tools.benchmarks import _loop_hook
    modes = []
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', modes.append)
    monkeypatch.setattr(_loop_hook, 'profile', MagicMock())
    hook = _loop_hook.MeasureLoopHook(1, 2, tmp_path / 'trace.json', ('step', 'wait'))
    monkeypatch.setattr(hook, '_synchronized', lambda: 0)
    hook.gpu = 'some GPU'
    for step in range(5):
        hook.before_train_iter(None, step)
        for _ in range(step):  # as torch says it, more than once at the same line
            if modes == ['warn']:
                warnings.warn('called a synchronizing CUDA operation (Triggered internally at ...)', stacklevel=1)
        hook.after_train_iter(None, step)
    assert modes == ['warn', 'default']
    assert len(hook.waits) == 3 and all(where.startswith(f'{__file__}:') for where in hook.waits)


def measure(tmp_path, *args):
    done = run_tool(BENCHMARK, 'loop', DEMO, *args, '--json', tmp_path / 'rows.json')
    assert done.returncode == 0, done.stderr
    return {row['what']: row for row in json.loads((tmp_path / 'rows.json').read_text())['rows']}


def test_measures_the_loop_on_clips_that_it_makes(tmp_path):
    rows = measure(tmp_path, *SMALL, '--picture', tmp_path / 'loop.png', '--trace', tmp_path / 'trace.json', *OPTIONS)
    step, wait = rows['a step']['value'], rows['of it waiting for data']['value']
    assert 0 < wait < step
    assert rows['share of a step not spent waiting for data']['value'] == pytest.approx(1 - wait / step)
    assert (tmp_path / 'loop.png').read_bytes().startswith(b'\x89PNG')
    names = [e['name'] for e in json.loads((tmp_path / 'trace.json').read_text())['traceEvents'] if e['ph'] == 'X']
    assert names.count('training step') == names.count('waiting for data') == 2
    assert sum(name.startswith('Optimizer.step') for name in names) == 2


def test_measures_the_loop_on_data_of_ones_own(small_demo, tmp_path):
    data = [*OPTIONS, f'train_dataloader.dataset.data_root={small_demo}']
    done = run_tool('tools/data/cache_frames.py', DEMO, '--out', tmp_path / 'frames', '--split', 'train', '--workers',
                    '1', *data)
    assert done.returncode == 0, done.stderr
    rows = measure(tmp_path, *SMALL, '--amp', '--frames-from', tmp_path / 'frames', *data)
    assert rows['a step']['value'] > rows['of it waiting for data']['value'] > 0


@pytest.mark.parametrize(('args', 'says'), [
    ([DEMO, '--steps', '1'], '--steps must be at least 2'), (['configs/none.py'], 'config not found'),
    (['configs/baselines/zero_shot_demo.py'], 'trains nothing'),
    ([DEMO, '--frames-from', 'nowhere'], 'no stored frames of')])
def test_bad_input_is_one_line(args, says):
    done = run_tool(BENCHMARK, 'loop', *args)
    assert done.returncode == 1 and says in done.stderr and 'Traceback' not in done.stderr
