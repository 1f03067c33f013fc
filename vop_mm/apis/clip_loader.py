"""Frames of users' videos, images and arrays, as a config's test pipeline makes them."""
import os
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image
from torch import Tensor

from vop_mm.datasets.decoding import DecodeProcess, FrameBatch
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.transforms.opening import clip_range
from vop_mm.registry import TRANSFORMS

_NOT_FRAMES = ('TokenizeText', 'PackVideoText')
_MAX_PIXELS = 100_000_000
_START, _IMAGE = 'start', 'image'  # what a child is asked for in place of clips


class ClipLoader:
    """Reads frames the way a config's ``test_dataloader`` does, files in child processes that may die.

    Args:
        cfg (Config): The config.
        num_workers (int): Child processes, started when they are needed. Defaults to 1.
        timeout (float): Seconds that opening a file, or reading some clips of it, may take. Defaults to 60.

    Attributes:
        steps (list[dict]): The pipeline's transforms up to the frames.

    Raises:
        ValueError: The config has no test pipeline of this project's form.
    """

    def __init__(self, cfg: Config, num_workers: int = 1, timeout: float = 60.) -> None:
        try:
            pipeline = cfg.test_dataloader.dataset.pipeline
        except AttributeError:
            raise ValueError(f'{cfg.filename or "the config"} has no test_dataloader.dataset.pipeline') from None
        self.steps = [dict(step) for step in flatten(pipeline) if step['type'].split('.')[-1] not in _NOT_FRAMES]
        opening = [step for step in self.steps if step['type'].split('.')[-1].startswith('OpenVideo')]
        if len(opening) != 1 or self.steps[0] is not opening[0]:
            raise ValueError('the test pipeline must begin with opening a video')
        self._open = TRANSFORMS.build(self.steps[0])
        self._rest = Compose([TRANSFORMS.build(step) for step in self.steps[1:]])
        self._workers = queue.SimpleQueue()
        for _ in range(num_workers):
            self._workers.put(DecodeProcess(_Child(self._open, self._rest), timeout))

    def start(self) -> None:
        """Start the child processes now: best before the caller has threads, connections and large arrays."""
        workers = [self._workers.get() for _ in range(self._workers.qsize())]
        for worker in workers:
            worker.call('', '', _START)
            self._workers.put(worker)

    def duration(self, path: str) -> float:
        """Of a video, in seconds. May be called from several threads.

        Raises:
            VideoDecodeError: It can't be opened.
        """
        with self._worker() as worker:
            return worker.call(path, path, None)

    def load(self, path: str, clips: Sequence[tuple[float, float] | None] = (None, )) -> tuple[Tensor, list[int]]:
        """Frames of clips of a video. May be called from several threads.

        Args:
            path (str): The video.
            clips (Sequence): Start and end in seconds of each; None: the whole video.

        Returns:
            tuple[Tensor, list[int]]: uint8 [n, F, 3, H, W], and how many frames of each clip are no padding.

        Raises:
            VideoDecodeError: It can't be read.
        """
        with self._worker() as worker:
            return _pack(worker.call(path, path, list(clips)))

    def load_frames(self, frames: np.ndarray) -> tuple[Tensor, list[int]]:
        """The same of frames that are decoded, uint8 [f, H, W, 3] RGB; n is 1.

        Raises:
            ValueError: Frames of another form.
        """
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f'frames must be uint8 [F, H, W, 3], got {frames.dtype} {frames.shape}')
        results = dict(video_reader=_Decoded(frames), total_frames=len(frames), modality='RGB')
        return _pack([_frames(self._rest(results))])

    def load_image(self, image: str | Path | np.ndarray) -> tuple[Tensor, list[int]]:
        """The same of an image, a file or uint8 [H, W, 3] RGB, as a video that stands still.

        Raises:
            VideoDecodeError: The file is no image, or a very large one.
            ValueError: An array of another form.
        """
        if isinstance(image, (str, os.PathLike)):
            with self._worker() as worker:
                return _pack(worker.call(str(image), str(image), _IMAGE))
        return self.load_frames(np.asarray(image)[None])

    def close(self) -> None:
        """End the child processes; the next call starts others."""
        for _ in range(self._workers.qsize()):
            worker = self._workers.get()
            worker.close()
            self._workers.put(worker)

    @contextmanager
    def _worker(self) -> Iterator[DecodeProcess]:
        worker = self._workers.get()
        try:
            yield worker
        finally:
            self._workers.put(worker)


class _Child:
    """What a child process does. It keeps the video of the last call open: the next one is often of the same."""

    def __init__(self, opening, rest) -> None:
        self.opening, self.rest = opening, rest
        self.file = self.opened = self.times = None

    def __call__(self, path: str, clips: list | str | None):
        if clips == _START:
            return None
        if clips == _IMAGE:
            return [_frames(self.rest(_still(path)))]
        file = _identity(path)
        if file is None or file != self.file:
            self.file = None
            self.opened = self.opening(dict(filename=path))
            self.times = self.opened['video_reader'].timestamps()
            self.file = file
        if clips is None:
            last = self.times[len(self.times) - 1]
            return float(last + (last / (len(self.times) - 1) if len(self.times) > 1 else 0))
        return [self._clip(clip) for clip in clips]

    def _clip(self, clip: tuple[float, float] | None) -> tuple[np.ndarray, int]:
        results = dict(self.opened)
        if clip is not None:
            results['clip_start'], results['clip_end'] = clip_range(self.times, *clip)
        return _frames(self.rest(results))


def _identity(path: str) -> tuple | None:
    """What changes when the file does."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return path, stat.st_ino, stat.st_size, stat.st_mtime_ns


class _Decoded(FrameBatch):
    """A video reader of frames in memory."""

    def get_batch(self, indices: Sequence[int]) -> FrameBatch:
        return FrameBatch(self._frames[indices])


def _still(path: str) -> dict:
    """An image file as a video of one frame."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise VideoDecodeError(path, f'an image of {image.width} x {image.height} pixels is too large')
            frame = np.asarray(image.convert('RGB'))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise VideoDecodeError(path, getattr(e, 'strerror', None) or 'not an image') from None
    return dict(video_reader=_Decoded(frame[None]), total_frames=1, modality='RGB')


def _frames(results: dict) -> tuple[np.ndarray, int]:
    """uint8 [F, 3, H, W], and how many are no padding."""
    frames = np.stack(results['imgs']).transpose(0, 3, 1, 2)  # F x [H, W, 3] -> [F, 3, H, W]
    return np.ascontiguousarray(frames), results.get('num_frames', len(frames))


def _pack(clips: list[tuple[np.ndarray, int]]) -> tuple[Tensor, list[int]]:
    frames, real = zip(*clips)
    return torch.from_numpy(np.stack(frames)), list(real)


def flatten(pipeline: Sequence[dict]) -> Iterator[dict]:
    """The transforms without those that hold others."""
    for step in pipeline:
        if 'transforms' in step:
            yield from flatten(step['transforms'])
        else:
            yield step
