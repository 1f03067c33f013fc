"""Frames from a store in place of decoding."""
import inspect
import json
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from vop_mm.registry import TRANSFORMS

from ..errors import FrameStoreError, VideoDecodeError
from ..frame_store import FrameStore, check_settings, encode_frames, source_of
from .isolation import IsolatedDecode
from .resizing import ResizeFrames

# what does the same to every frame in every epoch
_FIXED = ('ResizeFrames', 'CenterCrop')
# arguments that change how fast frames come, or how many times the last one is repeated, and no frame
_NO_MATTER = ('num_threads', 'pad')


def split_pipeline(pipeline: Sequence[dict]) -> tuple[list[dict], list[dict]]:
    """Cut a pipeline behind what a store can stand for: opening, sampling, decoding, fixed resizing and cropping.

    Args:
        pipeline (Sequence[dict]): Configs of transforms.

    Returns:
        tuple[list[dict], list[dict]]: The front, and the rest. What ran in an ``IsolatedDecode`` stands by itself.

    Raises:
        ValueError: There is no ``SampleSegments`` with something that decodes behind it.
    """
    pipeline = [inner for step in pipeline for inner in (step['transforms'] if _isolates(step) else [step])]
    names = [_kind(step).__name__ for step in pipeline]
    if 'SampleSegments' not in names[:-1]:
        raise ValueError(f'frames can be stored of a pipeline with SampleSegments and decoding behind it; this one is '
                         f'{" - ".join(names)}')
    end = names.index('SampleSegments') + 2
    while end < len(names) and names[end] in _FIXED:
        end += 1
    return list(pipeline[:end]), list(pipeline[end:])


def describe_pipeline(pipeline: Sequence[dict]) -> list[dict]:
    """Transforms with all their arguments, defaults too, as JSON reads them back: equal where frames are.

    Args:
        pipeline (Sequence[dict]): Configs of transforms.

    Returns:
        list[dict]: ``type`` and arguments each.
    """
    steps = []
    for step in pipeline:
        kind = _kind(step)
        bound = inspect.signature(kind).bind(**{k: v for k, v in step.items() if k != 'type'})
        bound.apply_defaults()
        steps.append(dict(type=kind.__name__, **{k: v for k, v in bound.arguments.items() if k not in _NO_MATTER}))
    return json.loads(json.dumps(steps, default=str))


def _isolates(step: dict) -> bool:
    return _kind(step) is IsolatedDecode


def _kind(step: dict) -> type:
    kind = step['type']
    found = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
    if found is None:
        raise KeyError(f'{kind} is not in the {TRANSFORMS.name} registry')
    return found


class FramesToStore:
    """The front of a pipeline, so that it gives what a store keeps of a clip.

    Args:
        pipeline (Sequence[dict]): Configs of transforms, the whole pipeline.
        per_segment (int): Where it samples a random frame of each segment, how many frames of each are stored.
            Defaults to 4.
        short_side (int): Where it goes on with a random crop, larger frames are scaled down to this; 0 keeps their
            size. Defaults to 256.
        quality (int, optional): Of JPEG. None: frames as they are.

    Attributes:
        settings (dict): What a store that is made of these frames was made with.

    Raises:
        ValueError: No frames can be stored of this pipeline.
    """

    def __init__(self, pipeline: Sequence[dict], per_segment: int = 4, short_side: int = 256,
                 quality: int | None = None) -> None:
        front, _ = split_pipeline(pipeline)
        names = [_kind(step).__name__ for step in front]
        at = names.index('SampleSegments')
        sample = TRANSFORMS.build(front[at])
        per_segment = per_segment if sample.mode == 'random' else 1
        # what comes behind decoding and is fixed makes frames of one size already
        self._short_side = 0 if names[-1] in _FIXED else short_side
        self._resize = ResizeFrames(self._short_side) if self._short_side else None
        grid = dict(front[at], mode='middle', num_frames=sample.num_frames * per_segment, pad=None)
        timeout = next((step.get('timeout', 60.) for step in pipeline if _isolates(step)), 60.)
        self._decode = IsolatedDecode([*front[:at], grid, *front[at + 1:]], timeout)
        self._quality = quality
        self.settings = dict(version=1, pipeline=describe_pipeline(front), frames_per_segment=per_segment,
                             short_side=self._short_side, quality=quality)

    def __call__(self, item: dict) -> tuple[dict, bytes]:
        """Decode a clip.

        Args:
            item (dict): As the first transform of a pipeline gets it.

        Returns:
            tuple[dict, bytes]: For :meth:`~vop_mm.datasets.FrameStoreWriter.add`. A video that can't be decoded, on
            which the decoder crashes or which takes too long is no error here, but recorded.
        """
        source = source_of(item['filename'])
        try:
            results = self._decode(dict(item))
        except VideoDecodeError as e:
            return dict(source=source, unreadable=e.reason), b''
        if self._resize is not None and min(results['imgs'][0].shape[:2]) > self._short_side:
            results = self._resize(results)
        imgs = results['imgs']
        data, lengths = encode_frames(imgs, self._quality)
        info = {key: results[key] for key in ('total_frames', 'avg_fps', 'clip_start', 'clip_end')}
        return dict(info, source=source, shape=[len(imgs), *imgs[0].shape], lengths=lengths,
                    frame_inds=np.asarray(results['frame_inds']).tolist()), data


@TRANSFORMS.register_module()
class LoadCachedFrames(BaseTransform):
    """Take a clip's frames from a store that tools/data/cache_frames.py made.

    It stands at the front of a pipeline, for the transforms that made the frames. ``frames_from=DIR`` in a config puts
    it there (:func:`vop_mm.apis.experiment.use_stored_frames`).

    Required keys: ``filename``, ``video``; optional ``start`` and ``end`` (seconds).

    Added keys: ``imgs``, ``frame_inds``, ``num_frames``, ``total_frames``, ``avg_fps``, ``clip_start``, ``clip_end``,
    ``img_shape``, ``original_shape`` (of the stored frames), ``modality``, ``clip_len``, ``num_clips``.

    Args:
        store (str): Its folder.
        pipeline (Sequence[dict]): Configs of the transforms that it stands for.

    Raises:
        FrameStoreError: There is no such store, it is not finished, or other settings made it; says which one differs.
    """

    def __init__(self, store: str, pipeline: Sequence[dict]) -> None:
        self.store = FrameStore(store)
        check_settings(store, self.store.settings, dict(pipeline=describe_pipeline(pipeline)))
        # of a denser grid it draws as of the whole clip; of the middle frames it takes all
        self._sample = TRANSFORMS.build(next(step for step in pipeline if _kind(step).__name__ == 'SampleSegments'))

    def transform(self, results: dict) -> dict:
        """Take the frames.

        Raises:
            VideoDecodeError: The video could not be decoded when the store was made.
            FrameStoreError: The clip is not there, or its file has changed since.
        """
        info = self.store.info(results['video'], results.get('start'), results.get('end'))
        if info is None:
            raise FrameStoreError(self.store.path, f'{_named(results)} is not in it; run tools/data/cache_frames.py '
                                  'with this annotation, it adds what is missing')
        try:
            changed = source_of(results['filename']) != info['source']
        except FileNotFoundError:
            changed = False  # where there are no videos, the store is all there is
        if changed:
            raise FrameStoreError(self.store.path, f'{results["filename"]} has changed since its frames were stored; '
                                  'run tools/data/cache_frames.py again')
        if 'unreadable' in info:
            raise VideoDecodeError(results['filename'], info['unreadable'])
        sampled = self._sample(dict(total_frames=info['shape'][0]))
        frames = self.store.frames(info, sampled['frame_inds'])
        shape = tuple(frames.shape[1:3])
        results.update({key: info[key] for key in ('total_frames', 'avg_fps', 'clip_start', 'clip_end')})
        results.update({key: sampled[key] for key in ('num_frames', 'clip_len', 'num_clips')})
        results.update(imgs=list(frames), frame_inds=np.array(info['frame_inds'])[sampled['frame_inds']],
                       img_shape=shape, original_shape=shape, modality='RGB')
        return results

    def __repr__(self) -> str:
        made = {key: value for key, value in self.store.settings.items() if key != 'pipeline'}
        return f'{type(self).__name__}(store={self.store.path!r}, made with {made})'


def _named(results: dict) -> str:
    times = [f'{key} {results[key]:g} s' for key in ('start', 'end') if results.get(key) is not None]
    return ', '.join([results['video'], *times])
