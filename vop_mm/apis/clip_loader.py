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
from torch import Tensor

from vop_mm.datasets.decoding import DecodeProcess, probe, read_image
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.datasets.transforms import ReadClip, split_pipeline
from vop_mm.registry import TRANSFORMS
from vop_mm.utils.cli import one_line

_TRIAL = 20  # seconds for a black frame
_CRASHES = 3  # of clips of one call: what comes behind them is not tried


class ClipLoader:
    """Reads frames the way a config's ``test_dataloader`` does, files in child processes that may die.

    Files are sampled by when their frames are shown (``sampling='time'``), whatever the config says: users' videos
    needn't have a constant rate. Where they do, frames are those of the config.

    Args:
        cfg (Config): The config.
        num_workers (int): Child processes, started when they are needed. Defaults to 1.
        timeout (float): Seconds that opening a file, or reading a clip of it, may take. Defaults to 60.

    Attributes:
        settings (list): What frames depend on: of reading a clip, and of each transform behind it.

    Raises:
        ValueError: The config has no test pipeline of this project's form.
    """

    def __init__(self, cfg: Config, num_workers: int = 1, timeout: float = 60.) -> None:
        try:
            pipeline = split_pipeline(cfg.test_dataloader.dataset.pipeline)
        except AttributeError:
            raise ValueError(f'{cfg.filename or "the config"} has no test_dataloader.dataset.pipeline') from None
        read = TRANSFORMS.build(dict(pipeline.read, sampling='time', store=None))
        self.settings = [read.settings, *pipeline.augment]
        self._frames = _Frames(read, Compose([TRANSFORMS.build(step) for step in pipeline.augment]))
        self._workers = queue.SimpleQueue()
        for _ in range(num_workers):
            self._workers.put(DecodeProcess(self._frames, timeout))

    def start(self) -> None:
        """Start the child processes now: best before the caller has threads, connections and large arrays."""
        workers = [self._workers.get() for _ in range(self._workers.qsize())]
        for worker in workers:
            worker.call('', None)
            self._workers.put(worker)

    def try_out(self, height: int, width: int) -> None:
        """Make a clip of one black frame, in a child process with limits: the pipeline may be somebody else's.

        Raises:
            ValueError: The pipeline makes no frames, or takes too much time or memory.
        """
        trial = DecodeProcess(lambda: self.load_frames(np.zeros((1, height, width, 3), np.uint8)) and None, _TRIAL)
        try:
            trial.call('')
        except VideoDecodeError as e:
            raise ValueError(f'the test pipeline makes too much of one black frame: {e.reason}') from None
        except Exception as e:  # OpenCV has errors of its own
            raise ValueError(f'the test pipeline makes nothing of one black frame: {one_line(e)}') from e
        finally:
            trial.close()

    def duration(self, path: str) -> float:
        """Of a video, in seconds. May be called from several threads.

        Raises:
            VideoDecodeError: It can't be opened.
        """
        with self._worker() as worker:
            return worker.call(path, 'seconds', path)

    def load(self, path: str) -> tuple[Tensor, list[int]]:
        """Frames of a video. May be called from several threads.

        Args:
            path (str): The video.

        Returns:
            tuple[Tensor, list[int]]: uint8 [1, F, 3, H, W], and how many frames are no padding, in a list.

        Raises:
            VideoDecodeError: It can't be read.
        """
        found, = self.load_clips(path, [None])
        if isinstance(found, VideoDecodeError):
            raise found
        return _pack(found)

    def load_clips(self, path: str, clips: Sequence[tuple[float, float] | None]
                   ) -> list[tuple[Tensor, int] | VideoDecodeError]:
        """Frames of clips of a video. May be called from several threads.

        Args:
            path (str): The video.
            clips (Sequence): Start and end in seconds of each; None: the whole video.

        Returns:
            list[tuple[Tensor, int] | VideoDecodeError]: For each its frames, uint8 [F, 3, H, W], and how many are no
            padding; or why it can't be read.

        Raises:
            VideoDecodeError: The file can't be read.
        """
        clips = [clip or (None, None) for clip in clips]
        with self._worker() as worker:
            try:
                found = worker.call(path, 'of_clips', path, clips, parts=len(clips))
            except VideoDecodeError:
                found = _read_apart(worker, path, clips) if len(clips) > 1 else []
                if not any(isinstance(clip, tuple) for clip in found):
                    raise
        return [clip if isinstance(clip, VideoDecodeError) else (torch.from_numpy(clip[0]), clip[1]) for clip in found]

    def load_frames(self, frames: np.ndarray) -> tuple[Tensor, list[int]]:
        """The same of frames that are decoded, uint8 [f, H, W, 3] RGB; n is 1.

        Raises:
            ValueError: Frames of another form.
        """
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f'frames must be uint8 [F, H, W, 3], got {frames.dtype} {frames.shape}')
        return _pack(_to_tensor(self._frames.of_decoded(frames)))

    def load_image(self, image: str | Path | np.ndarray) -> tuple[Tensor, list[int]]:
        """The same of an image, a file or uint8 [H, W, 3] RGB, as a video that stands still.

        Raises:
            VideoDecodeError: The file is no image, or a very large one.
            ValueError: An array of another form.
        """
        if isinstance(image, (str, os.PathLike)):
            with self._worker() as worker:
                return _pack(_to_tensor(worker.call(str(image), 'of_image', str(image))))
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


def _read_apart(worker: DecodeProcess, path: str, clips: list) -> list:
    """Read clips one by one, where one of them crashed or hung the decoder of all; some such clips are the last."""
    found, errors = [], []
    for clip in clips:
        if len(errors) < _CRASHES:
            try:
                found += worker.call(path, 'of_clips', path, [clip])
                continue
            except VideoDecodeError as e:
                errors.append(e)
        found.append(errors[-1])
    return found


class _Frames:
    """What a child process does, by name."""

    def __init__(self, read: ReadClip, augment: Compose) -> None:
        self.read, self.augment = read, augment

    def __call__(self, what: str | None, *args):
        return None if what is None else getattr(self, what)(*args)

    def seconds(self, path: str) -> float:
        return probe(path).seconds

    def of_clips(self, path: str, clips: list) -> list[tuple[np.ndarray, int] | VideoDecodeError]:
        return [clip if isinstance(clip, VideoDecodeError) else _frames(self.augment(clip))
                for clip in self.read.read(path, clips)]

    def of_image(self, path: str) -> tuple[np.ndarray, int]:
        return self.of_decoded(read_image(path)[None])

    def of_decoded(self, frames: np.ndarray) -> tuple[np.ndarray, int]:
        return _frames(self.augment(self.read.sample_decoded(frames)))


def _frames(results: dict) -> tuple[np.ndarray, int]:
    """uint8 [F, 3, H, W], and how many are no padding."""
    if not isinstance(results.get('imgs'), (list, np.ndarray)):
        raise ValueError('the test pipeline makes no frames')
    frames = np.stack(results['imgs']).transpose(0, 3, 1, 2)  # F x [H, W, 3] -> [F, 3, H, W]
    return np.ascontiguousarray(frames), results.get('num_frames', len(frames))


def _to_tensor(clip: tuple[np.ndarray, int]) -> tuple[Tensor, int]:
    return torch.from_numpy(clip[0]), clip[1]


def _pack(clip: tuple[Tensor, int]) -> tuple[Tensor, list[int]]:
    return clip[0][None], [clip[1]]
