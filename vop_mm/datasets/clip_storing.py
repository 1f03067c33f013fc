"""Convert clips to what a frame store keeps of them."""
from collections.abc import Sequence

from vop_mm.registry import TRANSFORMS

from .errors import VideoDecodeError
from .frame_store import VERSION, encode_frames, source_of
from .transforms import ResizeFrames, split_pipeline


class ClipStoring:
    """Reads clips as a pipeline does, to write them to a frame store.

    Args:
        pipeline (Sequence[dict]): Transform configs.
        per_segment (int): Number of frames to store per segment if the pipeline takes a random frame of each segment.
            Defaults to 4.
        short_side (int): If the pipeline doesn't resize frames while reading, larger ones are scaled down to this short
            side; 0 keeps their size. Defaults to 256.
        quality (int, optional): JPEG quality. None: uncompressed frames.

    Attributes:
        settings (dict): Settings to record in the store.

    Raises:
        ValueError: The pipeline does not begin by reading a clip.
    """

    def __init__(self, pipeline: Sequence[dict], per_segment: int = 4, short_side: int = 256,
                 quality: int | None = None) -> None:
        read = split_pipeline(pipeline).read
        settings = TRANSFORMS.build(read).settings
        if settings['mode'] != 'random':
            per_segment = 1
        grid = dict(mode='middle', pad=None, num_frames=settings['num_frames'] * per_segment)
        self._read = TRANSFORMS.build({**read, **grid})
        self._short_side = short_side if settings['size'] is None else 0
        self._resize = ResizeFrames(self._short_side) if self._short_side else None
        self._quality = quality
        self.settings = dict(version=VERSION, clip=settings, frames_per_segment=per_segment,
                             short_side=self._short_side, quality=quality)

    def __call__(self, item: dict) -> tuple[dict, bytes]:
        """Read a clip.

        Args:
            item (dict): Input of the pipeline's first transform.

        Returns:
            tuple[dict, bytes]: Arguments for :meth:`~vop_mm.datasets.FrameStoreWriter.add`. A video that can't be
            decoded, crashes the decoder or takes too long is recorded as unreadable and raises no error.
        """
        try:
            source = source_of(item['filename'], item.get('source'))
        except (OSError, ValueError) as e:  # removed in the meantime
            return dict(source=[-1, -1], unreadable=getattr(e, 'strerror', None) or str(e)), b''
        try:
            found = self._read(dict(item))
        except VideoDecodeError as e:
            return dict(source=source, unreadable=e.reason), b''
        imgs = found['imgs']
        if self._resize is not None and min(imgs[0].shape[:2]) > self._short_side:
            imgs = self._resize.resize(imgs)
        data, lengths = encode_frames(imgs, self._quality)
        return dict(source=source, shape=[len(imgs), *imgs[0].shape], lengths=lengths,
                    total_frames=found['total_frames'], frame_times=found['frame_times'].tolist()), data
