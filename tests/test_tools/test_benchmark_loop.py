"""benchmark.py loop: what is read out of a trace, on hand-made ones with known times, and the loop on small clips."""
import importlib
import json
from types import SimpleNamespace

import pytest
from mmengine.runner import Runner

from tests.tools import ROOT, run_tool

BENCHMARK = 'tools/analysis_tools/benchmark.py'
DEMO = 'configs/vop/vop_demo.py'
SMALL = ['--steps', '2', '--batch-size', '2']
OPTIONS = ['--cfg-options', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']


@pytest.fixture
def timeline(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools/analysis_tools'))
    return importlib.import_module('benchmarks._timeline')


def event(name, category, start, end, thread=1):
    """Milliseconds in, microseconds in the trace."""
    return dict(ph='X', cat=category, name=name, ts=5e6 + 1000 * start, dur=1000 * (end - start), tid=thread)


def trace():
    """Two steps of 100 ms, each behind 10 ms of waiting for data; the GPU goes on for 20 ms after the second."""
    events = []
    for start in (0, 110):
        events += [
            event('waiting for data', 'user_annotation', start, start + 10),
            event('training step', 'user_annotation', start + 10, start + 110),
            event('training step', 'gpu_user_annotation', start + 15, start + 130, thread=7),  # no work
            event('aten::mm', 'cpu_op', start + 12, start + 40), event('aten::add', 'cpu_op', start + 20, start + 30),
            event('autograd::engine::evaluate_function: MmBackward0', 'cpu_op', start + 50, start + 70, thread=2),
            event('aten::mm', 'cpu_op', start + 55, start + 60, thread=2),
            event('Optimizer.step#AdamW.step', 'user_annotation', start + 75, start + 85),
            event('aten::_foreach_add_', 'cpu_op', start + 76, start + 80),
            event('aten::stack', 'cpu_op', start + 90, start + 95),
            event('aten::_pin_memory', 'cpu_op', start + 20, start + 100, thread=3),  # of a data loader
            event('gemm', 'kernel', start + 30, start + 60, thread=7),
            event('elementwise', 'kernel', start + 50, start + 100, thread=8),  # on another stream, at the same time
            event('Memcpy HtoD (Pinned -> Device)', 'gpu_memcpy', start + 10, start + 15, thread=7)]
    events += [event('gemm', 'kernel', 220, 240, thread=7),
               event('Memcpy DtoH (Device -> Pageable)', 'gpu_memcpy', 230, 231, thread=7)]
    return dict(traceEvents=[*reversed(events), dict(ph='M', name='process_name'), dict(ph='i', name='mark', ts=1)])


def milliseconds(intervals):
    return [(round(1000 * a, 6), round(1000 * b, 6)) for a, b in intervals]


def test_a_trace_is_sorted_out(timeline):
    found = timeline.read_trace(trace())
    assert milliseconds(found.waits) == [(0, 10), (110, 120)]
    assert milliseconds(found.steps) == [(10, 110), (120, 220)]
    assert milliseconds(found.forward) == [(12, 40), (122, 150)]
    assert milliseconds(found.backward) == [(50, 70), (160, 180)]
    assert milliseconds(found.optimiser) == [(75, 85), (185, 195)]
    assert milliseconds(found.rest) == [(90, 95), (200, 205)]
    assert milliseconds(found.kernels) == [(30, 100), (140, 210), (220, 240)]
    assert found.copies_back == 1


def test_the_gpu_is_busy_while_any_kernel_runs_up_to_the_end_of_all_work(timeline):
    assert timeline.gpu_busy(timeline.read_trace(trace())) == pytest.approx((70 + 70 + 20) / 240)


@pytest.mark.parametrize(('intervals', 'share'), [
    ([], 0), ([(0, 10)], 1), ([(-5, 20)], 1), ([(2, 4), (3, 6)], 0.4), ([(2, 4), (4, 6)], 0.4), ([(1, 9), (3, 4)], 0.8),
    ([(8, 12), (-3, 1)], 0.3), ([(20, 30)], 0), ([(0, 10)] * 3, 1)])
def test_share_of_a_time_that_lies_in_intervals(timeline, intervals, share):
    assert timeline.busy_share(intervals, 0, 10) == pytest.approx(share)


def test_a_trace_without_steps_is_refused(timeline):
    with pytest.raises(ValueError, match='no training step'):
        timeline.read_trace(dict(traceEvents=[event('aten::mm', 'cpu_op', 0, 1)]))


def test_draws_what_a_gpu_did(timeline, tmp_path):
    timeline.draw(timeline.read_trace(trace()), tmp_path / 'a.png', 'made up')
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(('kernels', 'met'), [([(0.001, 0.1)], True), ([(0.01, 0.09)], False)])
def test_target_for_a_gpu(monkeypatch, timeline, kernels, met):
    loop = importlib.import_module('benchmarks.loop')
    measured = SimpleNamespace(step_time=0.05, wait_time=0.001, gpu='some GPU', reads=SimpleNamespace(count=2))
    found = timeline.Timeline([(0, 0.001)], [(0.001, 0.1)], [], [], [], [], kernels, 3)
    rows = {row['what']: row for row in loop.rows_of(measured, found, 20)}
    busy = rows['share of the time in which the GPU is busy']
    assert busy['met'] is met and busy['value'] == pytest.approx((kernels[0][1] - kernels[0][0]) / 0.1)
    assert rows['copies from the GPU in 20 profiled steps']['value'] == 3
    assert rows['reads of the device in 20 steps with one log']['met'] is False
    assert rows['share of a step not spent waiting for data']['value'] == pytest.approx(0.98)


def measure(tmp_path, *args, **kwargs):
    done = run_tool(BENCHMARK, 'loop', DEMO, *args, '--json', tmp_path / 'rows.json', **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout, {row['what']: row for row in json.loads((tmp_path / 'rows.json').read_text())['rows']}


def test_measures_the_loop_on_clips_that_it_makes(tmp_path):
    text, rows = measure(tmp_path, *SMALL, '--picture', tmp_path / 'loop.png', '--trace', tmp_path / 'trace.json',
                         *OPTIONS)
    step, wait = rows['a step']['value'], rows['of it waiting for data']['value']
    assert 0 < wait < step
    assert rows['share of a step not spent waiting for data']['value'] == pytest.approx(1 - wait / step)
    reads = rows['reads of the device in 2 steps with one log']
    assert reads['value'] == 1 and reads['met'] and 'vop_mm/engine/message_hub.py' in text
    assert (tmp_path / 'loop.png').read_bytes().startswith(b'\x89PNG')
    names = [e['name'] for e in json.loads((tmp_path / 'trace.json').read_text())['traceEvents'] if e['ph'] == 'X']
    assert names.count('training step') == names.count('waiting for data') == 2
    assert sum(name.startswith('Optimizer.step') for name in names) == 2


def as_mmengine_does():
    from vop_mm.engine.runner import RetrievalRunner
    RetrievalRunner.build_message_hub = Runner.build_message_hub


def test_finds_a_loop_that_waits_for_the_device_on_data_of_ones_own(small_demo, tmp_path):
    data = [*OPTIONS, f'train_dataloader.dataset.data_root={small_demo}']
    done = run_tool('tools/data/cache_frames.py', DEMO, '--out', tmp_path / 'frames', '--split', 'train', '--workers',
                    '1', *data)
    assert done.returncode == 0, done.stderr
    _, rows = measure(tmp_path, *SMALL, '--amp', '--frames-from', tmp_path / 'frames', *data, before=as_mmengine_does)
    reads = rows['reads of the device in 2 steps with one log']
    assert reads['value'] == 2 and reads['met'] is False


@pytest.mark.parametrize(('args', 'says'), [
    ([DEMO, '--steps', '1'], '--steps must be at least 2'), (['configs/none.py'], 'config not found'),
    (['configs/baselines/zero_shot_demo.py'], 'trains nothing'),
    ([DEMO, '--frames-from', 'nowhere'], 'no frames of')])
def test_bad_input_is_one_line(args, says):
    done = run_tool(BENCHMARK, 'loop', *args)
    assert done.returncode == 1 and says in done.stderr and 'Traceback' not in done.stderr
