"""Transform that reads a clip; the only place where a video becomes frames."""
import copy
import functools
import inspect
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
from mmcv.transforms import BaseTransform

from vop_mm.registry import READERS, TRANSFORMS

from ..decoding import DecodeProcess, VideoReader
from ..errors import FrameStoreError, VideoDecodeError
from ..frame_store import VERSION, FrameStore, check_settings, source_of
from .resizing import ResizeFrames
from .sampling import clip_moments, clip_range, sample_frames, sample_moments

Clip = tuple[float | None, float | None]
_NO_MATTER = ('pad', 'num_threads', 'timeout', 'store')  # arguments that do not affect frames


@TRANSFORMS.register_module()
class ReadClip(BaseTransform):
    """Open a video, sample frames of a clip, decode and resize them; or load them from a frame store.

    Decoding runs in a child process, so that a file that crashes or hangs the decoder counts as an undecodable video
    like any other. Each data loading process has one child, started with the first video.

    Required keys: ``filename``; optional ``start`` and ``end`` (seconds), and ``source``, a
    :class:`~vop_mm.datasets.video_source.VideoSource`, if the file is not in a local folder. A store needs ``video``.

    Added keys: ``imgs`` (list of F uint8 [H, W, 3] RGB), ``num_frames`` (number of real frames), ``total_frames``
    (frames in the clip), ``frame_times`` (seconds from the video's first frame, float64 [F]), ``img_shape``,
    ``original_shape``, and the keys that mmaction2's transforms need: ``modality``, ``clip_len``, ``num_clips``.

    Args:
        num_frames (int): F. Defaults to 12.
        mode (str): ``'middle'``: the middle frame of each of F equal segments; ``'random'``: a random frame of each.
            Defaults to ``'middle'``.
        sampling (str): ``'number'``: segments have equal numbers of frames, as in the papers; ``'time'``: equal
            duration. Both choose the same frames if the frame rate is constant. Defaults to ``'number'``.
        pad (str, optional): ``'repeat'``: a clip with fewer than F frames is padded with copies of its last frame.
            None: it gives fewer frames. Defaults to ``'repeat'``.
        size (int | Sequence[int], optional): Short side, or (height, width); see
            :class:`~vop_mm.datasets.transforms.ResizeFrames`. None: original size. Defaults to None.
        interpolation (str): ``'bicubic'`` or ``'bilinear'``. Defaults to ``'bicubic'``.
        reader (str): Name in the registry ``READERS``. Defaults to ``'PyAVReader'``.
        num_threads (int): Number of decoder threads. Defaults to 1, because loading is parallel over workers.
        timeout (float): Time limit per video in seconds; a large file gets more. Defaults to 60.
        store (str, optional): Frame store made by tools/data/cache_frames.py, to load frames from. Defaults to None.

    Raises:
        KeyError: The reader is unknown.
        FrameStoreError: The store is missing, not finished, or made with other settings.
        ValueError: An argument is out of range.
    """

    def __init__(self,
                 num_frames: int = 12,
                 mode: str = 'middle',
                 sampling: str = 'number',
                 pad: str | None = 'repeat',
                 size: int | Sequence[int] | None = None,
                 interpolation: str = 'bicubic',
                 reader: str = 'PyAVReader',
                 num_threads: int = 1,
                 timeout: float = 60.,
                 store: str | None = None) -> None:
        for name, value, allowed in (('mode', mode, ('middle', 'random')), ('sampling', sampling, ('number', 'time')),
                                     ('pad', pad, ('repeat', None))):
            if value not in allowed:
                raise ValueError(f'{name} must be {allowed[0]!r} or {allowed[1]!r}, got {value!r}')
        if num_frames < 1 or timeout <= 0:
            raise ValueError(f'num_frames must be at least 1, timeout more than 0, got {num_frames} and {timeout}')
        self.num_frames, self.mode, self.sampling, self.pad = num_frames, mode, sampling, pad
        self.reader, self.num_threads, self.timeout = reader, num_threads, timeout
        READERS.import_from_location()
        self._reader = READERS.module_dict.get(reader)  # get() would import the module of a dotted name
        if self._reader is None:
            raise KeyError(f'{reader} is not in the {READERS.name} registry: {", ".join(READERS.module_dict)}')
        self._resize = None if size is None else ResizeFrames(size, interpolation)
        self.size, self.interpolation = self._resize and self._resize.size, interpolation
        self.store = None
        if store is not None:
            self.store = FrameStore(store)
            check_settings(store, self.store.settings, dict(version=VERSION, clip=self.settings))

    @functools.cached_property
    def _process(self) -> DecodeProcess:
        # from a copy without a process: a reference cycle would keep the child alive until garbage collection
        return DecodeProcess(copy.copy(self).read, self.timeout)

    @property
    def settings(self) -> dict:
        """Arguments that affect frames, as they come back from JSON."""
        names = [name for name in inspect.signature(ReadClip).parameters if name not in _NO_MATTER]
        return {name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in names}

    def transform(self, results: dict) -> dict:
        """Read a clip.

        Raises:
            VideoDecodeError: The video can't be decoded (now, or when it was stored), or ends before the clip starts.
            FrameStoreError: The clip is not in the store, or its file has changed since.
        """
        draws = np.random.random(self.num_frames) if self.mode == 'random' else None
        if self.store is not None:
            results.update(self._stored(results, draws))
            return results
        name, source = results['filename'], results.get('source')
        with nullcontext(name) if source is None else source.local(name) as path:
            try:
                found, = self._process.call(path, path, [(results.get('start'), results.get('end'))], draws)
            except VideoDecodeError as e:
                found = e
        if isinstance(found, VideoDecodeError):
            raise VideoDecodeError(name, found.reason)
        results.update(found)
        return results

    # -- in the child process, or wherever else there are limits ------------------------------------------------------
    def open(self, path: str, start: float | None = None, end: float | None = None) -> VideoReader:
        """Open a video, or the part of it between two times in seconds; raises VideoDecodeError."""
        return self._reader(path, self.num_threads, start, end)

    def read(self, path: str, clips: Sequence[Clip], draws: np.ndarray | None = None) -> list[dict | VideoDecodeError]:
        """Read clips of a file in this process. Best called where crashes and hangs are tolerated.

        Args:
            path (str): Path of the video.
            clips (Sequence): Start and end of each clip in seconds, or None for those of the video.
            draws (np.ndarray, optional): See :func:`~vop_mm.datasets.transforms.sample_frames`.

        Returns:
            list[dict | VideoDecodeError]: For each clip the keys added to a sample, or why it can't be read.

        Raises:
            VideoDecodeError: The file can't be opened.
        """
        starts, ends = zip(*clips)
        span = (None if None in starts else min(starts), None if None in ends else max(ends))
        reader = self.open(path, *span)
        try:
            return [self._read(reader, clip, draws) for clip in clips]
        finally:
            reader.close()

    def _read(self, reader: VideoReader, clip: Clip, draws: np.ndarray | None) -> dict | VideoDecodeError:
        times, stop = reader.timestamps(), reader.duration
        try:
            if self.sampling == 'time':
                first, shown, gone = clip_moments(times, stop, *clip)
                total, chosen = len(shown), sample_moments(shown, gone, self.num_frames, draws)
            else:
                first, behind = clip_range(times, stop, *clip)
                total, chosen = behind - first, sample_frames(behind - first, self.num_frames, draws)
            frames = reader.get_batch(first + chosen).asnumpy()
        except VideoDecodeError as e:
            return e
        except ValueError as e:
            return VideoDecodeError(reader.path, str(e))
        return self._finish(frames, total, times[first + chosen])

    def sample_decoded(self, frames: np.ndarray) -> dict:
        """Sample and resize decoded frames, uint8 [n, H, W, 3] RGB, of a video with constant frame rate."""
        chosen = sample_frames(len(frames), self.num_frames)
        return self._finish(frames[chosen], len(frames), np.full(len(chosen), np.nan))

    # -- in any process -----------------------------------------------------------------------------------------------
    def _stored(self, results: dict, draws: np.ndarray | None) -> dict:
        store, clip = self.store, (results.get('start'), results.get('end'))
        named = ', '.join([results['video'], *(f'{key} {value:g} s' for key, value in zip(('start', 'end'), clip)
                                               if value is not None)])
        info = store.info(results['video'], *clip)
        if info is None:
            raise FrameStoreError(store.path, f'{named} is not in it; run tools/data/cache_frames.py with this '
                                  'annotation to add it')
        try:
            # remote files are not checked again at every read
            changed = results.get('source') is None and source_of(results['filename']) != info['source']
        except (FileNotFoundError, NotADirectoryError):
            changed = False  # without the videos, the store is all there is
        if changed:
            raise FrameStoreError(store.path, f'{results["filename"]} has changed since its frames were stored; '
                                  'run tools/data/cache_frames.py again')
        if 'unreadable' in info:
            raise VideoDecodeError(results['filename'], info['unreadable'])
        # samples a denser grid like the whole clip; takes all of the middle frames
        chosen = sample_frames(info['shape'][0], self.num_frames, draws)
        times = np.asarray(info['frame_times'])
        return self._finish(store.frames(info, chosen), info['total_frames'], times[chosen], resized=True)

    def _finish(self, frames: np.ndarray, total: int, times: np.ndarray, resized: bool = False) -> dict:
        """Resize, pad and describe frames [n, H, W, 3]."""
        original, real = frames.shape[1:3], len(frames)
        imgs = list(frames) if resized or self._resize is None else self._resize.resize(frames)
        lacking = self.num_frames - real if self.pad else 0
        imgs += [imgs[-1].copy() for _ in range(lacking)]  # changing one copy in place must not change the others
        return dict(imgs=imgs, num_frames=real, total_frames=total, img_shape=imgs[0].shape[:2],
                    frame_times=np.pad(times, (0, lacking), mode='edge'), original_shape=original, modality='RGB',
                    clip_len=len(imgs), num_clips=1)

    def __repr__(self) -> str:
        said = ', '.join(f'{name}={value!r}' for name, value in self.settings.items())
        return f'{type(self).__name__}({said}, pad={self.pad!r}, timeout={self.timeout:g}, ' \
               f'store={self.store and self.store.path!r})'
