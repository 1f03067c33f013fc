"""Dataset of videos and captions in tar shards."""
from collections.abc import Sequence

from vop_mm.registry import DATASETS

from .annotation import check_entries
from .tar_shards import TarSource, expand_shards, read_shard
from .video_source import VideoSource
from .video_text_dataset import VideoTextDataset


@DATASETS.register_module()
class TarVideoTextDataset(VideoTextDataset):
    """Videos in WebDataset tar shards: one item per (video, caption) pair, or per video in ``test_mode``.

    A sample consists of the members of a shard with the same name up to the first dot: a video, and ``.txt`` (one
    caption) or ``.json`` (``{"caption": ...}`` or ``{"captions": [...]}``, optional ``start`` and ``end`` in seconds).
    Other members are ignored. The shards, uncompressed tar archives, are listed once at the start. After that samples
    can be accessed in any order: shuffling, distributed sampling and resuming work as in :class:`VideoTextDataset`, not
    as in a stream. ``video_id`` is ``shard/key``, ``video`` is ``shard.tar/member``.

    Args:
        shards (str | Sequence[str]): ``'shard-{0000..0099}.tar'``, ``'shard-*.tar'`` or names, relative to
            ``data_root``.
        **kwargs: Arguments of :class:`VideoTextDataset`, except ``ann_file``, ``data_prefix`` and ``backend_args``.

    Raises:
        AnnotationError: A shard is missing, ill-formed, or contains what it must not.
    """

    def __init__(self, shards: str | Sequence[str], **kwargs) -> None:
        self.shards = shards
        super().__init__(ann_file='', **kwargs)

    def read_entries(self) -> tuple[dict, list[dict], VideoSource]:
        """Read the entries of all shards; see :meth:`VideoTextDataset.read_entries`."""
        paths = expand_shards(self.shards, self.data_root or '')
        entries, members = [], {}
        for number, path in enumerate(paths):
            listed, places = read_shard(path, number)
            check_entries(path, listed)
            entries += listed
            members.update(places)
        return {}, entries, TarSource(paths, members)
