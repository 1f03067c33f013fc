"""Load frames of users' videos, images and arrays with a config's test pipeline."""
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

_TRIAL_TIMEOUT = 20  # time limit in seconds for one black frame
_MAX_CRASHES = 3  # number of crashing clips per call after which the remaining clips are not tried


class ClipLoader:
    """Reads frames as a config's ``test_dataloader`` does; files are decoded in child processes that may die.

    Files are sampled by presentation time (``sampling='time'``), whatever the config says, because users' videos may
    have a variable frame rate. At a constant rate, the frames are those of the config.

    Args:
        cfg (Config): The config.
        num_workers (int): Number of child processes, started on demand. Defaults to 1.
        timeout (float): Time limit in seconds for opening a file or reading one clip of it. Defaults to 60.

    Attributes:
        settings (list): Settings that affect frames: of reading a clip, and configs of the transforms after it.
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
        """Start the child processes; best done before the caller has threads, connections and large arrays."""
        for _ in range(self._workers.qsize()):
            with self._worker() as worker:
                worker.call('', None)

    def try_out(self, height: int, width: int) -> None:
        """Make a clip from one black frame in a limited child process, as the pipeline may be untrusted."""
        frame = np.zeros((1, height, width, 3), np.uint8)
        trial = DecodeProcess(lambda: self.load_frames(frame) and None, _TRIAL_TIMEOUT)
        try:
            trial.call('')
        except VideoDecodeError as e:
            raise ValueError(f'the test pipeline fails on a black frame: {e.reason}') from None
        except Exception as e:  # OpenCV has its own error types
            raise ValueError(f'the test pipeline fails on a black frame: {one_line(e)}') from e
        finally:
            trial.close()

    def duration(self, path: str) -> float:
        """Return the duration of a video in seconds. Thread-safe."""
        with self._worker() as worker:
            return worker.call(path, 'seconds', path)

    def load(self, path: str) -> tuple[Tensor, list[int]]:
        """Load frames of a video. Thread-safe.

        Returns:
            tuple[Tensor, list[int]]: uint8 [1, F, 3, H, W], and the number of real (not padded) frames, in a list.

        Raises:
            VideoDecodeError: The video can't be read.
        """
        found, = self.load_clips(path, [None])
        if isinstance(found, VideoDecodeError):
            raise found
        return _pack(found)

    def load_clips(self, path: str, clips: Sequence[tuple[float, float] | None]
                   ) -> list[tuple[Tensor, int] | VideoDecodeError]:
        """Load frames of clips of a video, by their start and end in seconds; None: the whole video. Thread-safe.

        Returns:
            list[tuple[Tensor, int] | VideoDecodeError]: For each clip its frames, uint8 [F, 3, H, W], and the number of
            real frames; or why it can't be read.

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
        return [clip if isinstance(clip, VideoDecodeError) else _to_tensor(clip) for clip in found]

    def load_frames(self, frames: np.ndarray) -> tuple[Tensor, list[int]]:
        """Make a clip from decoded frames, uint8 [f, H, W, 3] RGB; see :meth:`load` for the result."""
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f'frames must be uint8 [F, H, W, 3], got {frames.dtype} {frames.shape}')
        return _pack(_to_tensor(self._frames.of_decoded(frames)))

    def load_image(self, image: str | Path | np.ndarray) -> tuple[Tensor, list[int]]:
        """Make a clip from an image, a file or uint8 [H, W, 3] RGB, as a still video; see :meth:`load`."""
        if isinstance(image, (str, os.PathLike)):
            with self._worker() as worker:
                return _pack(_to_tensor(worker.call(str(image), 'of_image', str(image))))
        return self.load_frames(np.asarray(image)[None])

    def close(self) -> None:
        """Stop the child processes; the next call starts new ones."""
        for _ in range(self._workers.qsize()):
            with self._worker() as worker:
                worker.close()

    @contextmanager
    def _worker(self) -> Iterator[DecodeProcess]:
        worker = self._workers.get()
        try:
            yield worker
        finally:
            self._workers.put(worker)


def _read_apart(worker: DecodeProcess, path: str, clips: list) -> list:
    """Read clips one by one, after one of them crashed or hung the decoder; give up after a few such clips."""
    found, errors = [], []
    for clip in clips:
        if len(errors) < _MAX_CRASHES:
            try:
                found += worker.call(path, 'of_clips', path, [clip])
                continue
            except VideoDecodeError as e:
                errors.append(e)
        found.append(errors[-1])
    return found


class _Frames:
    """Functions that a child process runs, by name."""

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
    """Return frames, uint8 [F, 3, H, W], and the number of real frames."""
    if not isinstance(results.get('imgs'), (list, np.ndarray)):
        raise ValueError('the test pipeline returns no frames')
    frames = np.stack(results['imgs']).transpose(0, 3, 1, 2)  # F x [H, W, 3] -> [F, 3, H, W]
    return np.ascontiguousarray(frames), results.get('num_frames', len(frames))


def _to_tensor(clip: tuple[np.ndarray, int]) -> tuple[Tensor, int]:
    return torch.from_numpy(clip[0]), clip[1]


def _pack(clip: tuple[Tensor, int]) -> tuple[Tensor, list[int]]:
    return clip[0][None], [clip[1]]
