"""Dataset of videos and their captions."""
import os.path as osp
from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from vop_mm.registry import DATASETS, TRANSFORMS

from .annotation import locate_video, printable, read_annotation
from .errors import AnnotationError, TooManyUnreadableVideosError, VideoDecodeError, VideoNotFoundError
from .randomness import SharedClock, fixed_randomness
from .remote import is_address
from .video_source import VideoSource

_CLIP = ('filename', 'video', 'start', 'end', 'source')  # keys that determine the frames


@DATASETS.register_module()
class VideoTextDataset(BaseDataset):
    """Videos with captions: one item per (video, caption) pair in training, per video with all captions otherwise.

    Input of the first transform: ``filename`` (path), ``video`` (as in the annotation), ``video_id``, ``source`` (for
    remote videos, the :class:`VideoSource` that turns ``filename`` into a path), ``video_index`` (int, the video's
    position in the annotation, the same for all its captions), ``captions`` (list of str), ``start`` and ``end``
    (seconds, if the annotation has them), and every other key of the annotation's entry under its own name.

    All random choices of a training item are a function of (seed, epoch, index), independent of workers, their number
    and resuming. :class:`~vop_mm.engine.hooks.SetEpochHook` sets the run's seed and the epoch.

    A video that can't be decoded (the pipeline raises :class:`VideoDecodeError`) is never passed on silently:

    * ``'replace'`` (training): another item takes its place, drawn from (seed, epoch, index). Its data sample's
      metainfo ``unreadable`` lists the failed videos as ``(path, reason)``. If ``max_replacements`` other videos
      fail as well, an error is raised.
    * ``'error'``: the error is raised; it names the file.
    * ``'skip'`` (evaluation): the item stays, so that every rank, batch and result keeps its place, with black
      ``inputs`` and its own captions and ids, and its metainfo ``unreadable`` is ``[(path, reason)]``. Metrics must
      exclude such items: :class:`~vop_mm.evaluation.metrics.RetrievalMetric` does and reports them.

    Args:
        ann_file (str): Annotation; see :func:`~vop_mm.datasets.annotation.read_annotation`. Relative to ``data_root``.
        data_prefix (dict): ``video``: folder or manifest of the videos, relative to ``data_root``, or an address; see
            :class:`VideoSource`. Paths in the annotation must not lead out of it.
        backend_args (dict, optional): Options for reading the videos; see :class:`VideoSource`. Defaults to None.
        pipeline (Sequence): Transforms, ending with :class:`~vop_mm.datasets.transforms.PackVideoText`.
        test_mode (bool): One item per video. Defaults to False: one per (video, caption) pair.
        on_unreadable (str, optional): See above. Defaults to ``'replace'`` in training and ``'error'`` otherwise.
        max_replacements (int): Maximum number of other videos to try. Defaults to 10.
        check_files (bool): Check at the start that all videos of a local folder exist. Defaults to True.
        seed (int): Random seed until a hook sets the run's. Defaults to 0.
        **kwargs: Arguments of :class:`mmengine.dataset.BaseDataset` (``data_root``, ``indices``, ``lazy_init`` ...).

    Raises:
        AnnotationError: The annotation is missing, ill-formed or empty, or names files outside of the folder.
        VideoNotFoundError: Videos are missing.
    """

    def __init__(self,
                 ann_file: str,
                 data_prefix: dict = dict(video=''),
                 backend_args: dict | None = None,
                 pipeline: Sequence[dict | Callable] = (),
                 test_mode: bool = False,
                 on_unreadable: str | None = None,
                 max_replacements: int = 10,
                 check_files: bool = True,
                 seed: int = 0,
                 **kwargs) -> None:
        allowed = ('error', 'skip') if test_mode else ('replace', 'error')
        self.on_unreadable = on_unreadable or ('error' if test_mode else 'replace')
        if self.on_unreadable not in allowed:
            raise ValueError(f'on_unreadable must be one of {allowed} with test_mode={test_mode}, '
                             f'got {on_unreadable!r}')
        self.backend_args, self.max_replacements = backend_args, max_replacements
        self.check_files = check_files
        self._clock, self._videos = SharedClock(seed), data_prefix.get('video', '')
        # built here: MMEngine looks names up in the default scope, which a script may not have set
        pipeline = [TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline]
        super().__init__(ann_file=ann_file, data_prefix=data_prefix, pipeline=pipeline, test_mode=test_mode, **kwargs)

    def get_data_info(self, idx: int) -> dict:
        """Return an item as the first transform gets it."""
        info = super().get_data_info(idx)
        return info if self.source.is_local else dict(info, source=self.source)

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Set the epoch and seed of all random choices; running workers see them too.

        Args:
            epoch (int): Next epoch, from 0.
            seed (int, optional): Random seed of the run. None: unchanged.
        """
        self._clock.set(epoch, seed)

    def load_data_list(self) -> list[dict]:
        """Read the annotation.

        Returns:
            list[dict]: Items as the first transform gets them, one per pair in training, per video otherwise.
        """
        metainfo, entries, self.source = self.read_entries()
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        items = []
        for index, entry in enumerate(entries):
            item = {k: v for k, v in entry.items() if not (k in ('start', 'end') and v is None)}
            item.update(filename=self._locate(index, entry), video_index=index)
            if not item.keys() & {'start', 'end'}:
                item.update((k, v) for k, v in zip(('start', 'end'), self.source.window(entry['video']))
                            if v is not None)
            if self.test_mode:
                items.append(item)
            else:
                items.extend(dict(item, captions=[caption]) for caption in entry['captions'])
        if self.check_files and self.source.is_local:
            self._check_files(items)
        return items

    def read_entries(self) -> tuple[dict, list[dict], VideoSource]:
        """Return metainfo and entries, see :func:`read_annotation`, and the source of the videos."""
        return *read_annotation(self.ann_file), VideoSource(self.data_prefix.get('video', ''), self.backend_args)

    def full_init(self) -> None:
        """Load the annotation; see :meth:`mmengine.dataset.BaseDataset.full_init`."""
        if is_address(self._videos):  # MMEngine joins addresses of unknown schemes with the folder of the dataset
            self.data_prefix['video'] = self._videos
        super().full_init()

    def _locate(self, index: int, entry: dict) -> str:
        """Return the path of a video, or its name in the source."""
        if self.source.is_local:
            return locate_video(self.ann_file, index, entry, self.source.root)
        try:
            self.source.shown(entry['video'])
        except ValueError as e:
            raise AnnotationError(self.ann_file, f'entry {index} ({printable(entry["video_id"])}): {e}') from None
        return entry['video']

    def _check_files(self, items: list[dict]) -> None:
        files = dict.fromkeys(item['filename'] for item in items)
        missing = [file for file in files if not osp.isfile(file)]
        if missing:
            shown = ', '.join(osp.join(osp.dirname(file)[:200], printable(osp.basename(file))) for file in missing[:3])
            shown += ', ...' if len(missing) > 3 else ''
            raise VideoNotFoundError(f'{len(missing)} of {len(files)} videos of {self.ann_file} not found: {shown}')

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on an item; see the class for what happens if its video can't be decoded.

        Args:
            idx (int): Index of the item.

        Returns:
            dict: Output of the last transform.

        Raises:
            VideoDecodeError: The video can't be decoded, with ``on_unreadable='error'``.
            TooManyUnreadableVideosError: No other video could be decoded either.
        """
        idx = idx % len(self)
        info = self.get_data_info(idx)
        try:
            return self._run(info, idx, attempt=0)
        except VideoDecodeError as e:
            if self.on_unreadable == 'error':
                raise
            first = (info['filename'], e.reason)
        return self._skipped(idx, info, first) if self.test_mode else self._replacement(idx, first)

    def _run(self, info: dict, idx: int, attempt: int) -> dict:
        # evaluation must not depend on the epoch
        epoch = 0 if self.test_mode else self._clock.epoch
        with fixed_randomness(self._clock.seed, epoch, idx, attempt):
            if self.source.is_local:
                return self.pipeline(info)
            try:
                return self.pipeline(info)
            except VideoDecodeError as e:
                raise VideoDecodeError(self.source.shown(info['video']), e.reason) from None

    def _replacement(self, idx: int, first: tuple[str, str]) -> dict:
        """Return another item in place of one whose video failed."""
        # a separate random stream, so that the choice does not depend on the pipeline's draws
        rng = np.random.default_rng((self._clock.seed, self._clock.epoch, idx, 2**31))
        candidates = (int(rng.integers(len(self))) for _ in range(100 * self.max_replacements))
        return self._first_readable(idx, candidates, first)

    def _skipped(self, idx: int, info: dict, first: tuple[str, str]) -> dict:
        """Return an item of the right shape for a video that can't be decoded, marked so that metrics exclude it."""
        # Only the pipeline knows the shape of its frames, so it reads another video, which is blacked out.
        candidates = ((idx + step) % len(self) for step in range(1, len(self)))
        item = self._first_readable(idx, candidates, first, captions_of=info)
        item['inputs'] = torch.zeros_like(item['inputs'])
        item['data_samples'].set_metainfo(
            dict(filename=info['filename'], num_frames=len(item['inputs']), unreadable=[first]))
        return item

    def _first_readable(self, idx: int, candidates, first: tuple[str, str], captions_of: dict | None = None) -> dict:
        failed = dict([first])  # path -> reason, in the order of failure
        for candidate in candidates:
            if len(failed) > self.max_replacements:
                break
            info = self.get_data_info(candidate)
            path = info['filename']
            if path in failed:  # another caption of the same video
                continue
            if captions_of is not None:
                clip = {key: info[key] for key in _CLIP if key in info}
                info = {k: v for k, v in captions_of.items() if k not in _CLIP} | clip
            info['unreadable'] = list(failed.items())
            try:
                return self._run(info, idx, attempt=len(failed))
            except VideoDecodeError as e:
                failed[path] = e.reason
        raise TooManyUnreadableVideosError(
            f'none of {len(failed)} videos in a row can be decoded; the first: {first[0]}: {first[1]}')
