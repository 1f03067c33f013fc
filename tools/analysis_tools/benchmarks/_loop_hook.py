"""Hook that measures the training loop."""
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import torch
from mmengine.hooks import Hook
from torch.profiler import ProfilerActivity, profile, record_function


class MeasureLoopHook(Hook):
    """Hook that times a number of steps and then profiles the same number.

    Args:
        warm_up (int): Number of steps before the measurement.
        steps (int): Number of timed steps and of profiled steps.
        trace (Path): File for the profiler's trace.
        labels (tuple[str, str]): Names of a step and of a wait for data in the trace.

    Attributes:
        gpu (str): Name of the GPU, or empty.
        step_time (float): Seconds per timed step.
        wait_time (float): Seconds per timed step that the host waits for data.
        waits (list[str]): Source lines that made the host wait for the GPU in the timed steps.
    """
    # a step ends with the last hook
    priority = 'LOWEST'

    def __init__(self, warm_up: int, steps: int, trace: Path, labels: tuple[str, str]) -> None:
        self.gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ''
        self.wait_time = 0.
        self._steps, self._trace = steps, trace
        self._step, self._wait = labels
        self._timed, self._profiled, self._end = (warm_up + i * steps for i in range(3))
        self._part, self._watch = ExitStack(), ExitStack()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Record the wait for data, which has arrived."""
        if self._timed <= batch_idx < self._profiled:
            self.wait_time += (time.perf_counter() - self._left) / self._steps
        self._mark(self._step)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Record the end of a step, and start the next phase if due."""
        self._part.close()
        done = batch_idx + 1
        if done == self._timed:
            self._start = self._synchronized()
            self._warnings = self._watch.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter('always')
            self._say_where_it_waits('warn')
        elif done == self._profiled:
            self._say_where_it_waits('default')
            self._watch.close()
            self.waits = [f'{warning.filename}:{warning.lineno}' for warning in self._warnings
                          if 'synchronizing CUDA operation' in str(warning.message)]
            self.step_time = (self._synchronized() - self._start) / self._steps
            gpu = [ProfilerActivity.CUDA] if self.gpu else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profile.start()
        elif done == self._end:
            self._synchronized()
            self._profile.stop()
            self._profile.export_chrome_trace(str(self._trace))
        if done < self._end:
            self._mark(self._wait)
        self._left = time.perf_counter()

    def _mark(self, name: str) -> None:
        """Mark the start of the next section in the profiler's trace."""
        self._part.close()
        self._part.enter_context(record_function(name))

    def _say_where_it_waits(self, mode: str) -> None:
        if self.gpu:
            torch.cuda.set_sync_debug_mode(mode)

    def _synchronized(self) -> float:
        if self.gpu:
            torch.cuda.synchronize()
        return time.perf_counter()
