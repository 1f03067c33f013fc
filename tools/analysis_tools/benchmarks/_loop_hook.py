"""A hook that measures the loop which calls it."""
import time
from pathlib import Path

import torch
from mmengine.hooks import Hook
from torch.profiler import ProfilerActivity, profile, record_function

from vop_mm.utils.device_reads import DeviceReads

from ._timeline import STEP, WAIT


class MeasureLoopHook(Hook):
    """Times steps, then counts reads of the device, then profiles, each over as many steps.

    Args:
        warm_up (int): Steps before that.
        steps (int): Of each kind.
        trace (Path): Where the profiler's trace goes.

    Attributes:
        gpu (str): Name of the GPU, or empty.
        step_time (float): Seconds of a timed step.
        wait_time (float): Seconds of it in which the host waits for data.
        reads (DeviceReads): Of the counted steps.
    """
    # a step ends with the last hook
    priority = 'LOWEST'

    def __init__(self, warm_up: int, steps: int, trace: Path) -> None:
        self.gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ''
        self._steps, self._trace = steps, trace
        self._timed, self._counted, self._profiled, self._end = (warm_up + i * steps for i in range(4))
        self._waits: list[float] = []
        self._part: record_function | None = None  # what the trace says is going on

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """The data is there."""
        if self._timed <= batch_idx < self._counted:
            self._waits.append(time.perf_counter() - self._left)
        if self._profiled <= batch_idx < self._end:
            self._mark(STEP)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """A step is done: on to the next one, or to the next kind."""
        self._mark(None)
        done = batch_idx + 1
        if done == self._timed:
            self._start = self._synchronised()
        elif done == self._counted:
            self.step_time = (self._synchronised() - self._start) / self._steps
            self.wait_time = sum(self._waits) / self._steps
            self.reads = DeviceReads(runner.model)
            self.reads.__enter__()
        elif done == self._profiled:
            self.reads.__exit__(None, None, None)
            self._synchronised()
            gpu = [ProfilerActivity.CUDA] if self.gpu else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profile.start()
        elif done == self._end:
            self._synchronised()
            self._profile.stop()
            self._profile.export_chrome_trace(str(self._trace))
        if self._profiled <= done < self._end:
            self._mark(WAIT)
        self._left = time.perf_counter()

    def _mark(self, name: str | None) -> None:
        """Say to the profiler what goes on from here."""
        if self._part is not None:
            self._part.__exit__(None, None, None)
        self._part = record_function(name) if name else None
        if self._part is not None:
            self._part.__enter__()

    def _synchronised(self) -> float:
        if self.gpu:
            torch.cuda.synchronize()
        return time.perf_counter()
