"""Data preprocessor that turns collated samples into a batch on the device."""
from collections.abc import Callable, Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from vop_mm.registry import MODELS

from ..backbones.base import OPENAI_MEAN, OPENAI_STD, Backbone


@MODELS.register_module()
class VideoTextPreprocessor(BaseDataPreprocessor):
    """Data preprocessor that builds a batch on the device; frames are copied as uint8 and normalized there.

    Args:
        mean (Sequence[float], optional): Mean of each channel, for pixels in 0..1. None: the backbone's.
        std (Sequence[float], optional): Standard deviation of each channel. None: the backbone's.
        short_videos (str): Treatment of videos with fewer than F frames, which are filled up by repeating the last
            frame. ``'repeat'``: the repeated frames count like the others, as in the published code. ``'mask'``: they
            are padding and masked out. Defaults to ``'repeat'``.
        non_blocking (bool): Don't wait for copies to the device. Defaults to True.
    """

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
                 short_videos: str = 'repeat', non_blocking: bool = True) -> None:
        super().__init__(non_blocking)
        if short_videos not in ('repeat', 'mask'):
            raise ValueError(f"short_videos must be 'repeat' or 'mask', got {short_videos!r}")
        self.short_videos, self.non_blocking = short_videos, non_blocking
        self._given = dict(mean=mean, std=std)
        self._normalize_by(OPENAI_MEAN, OPENAI_STD)  # without a backbone
        self._cut_captions: Callable[[Tensor], Tensor] | None = None

    def prepare(self, backbone: Backbone) -> None:
        """Complete the preprocessor with what the backbone declares: mean, deviation, and where captions may be cut.

        Args:
            backbone (Backbone): The model's backbone.
        """
        self._normalize_by(backbone.preprocessing.mean, backbone.preprocessing.std)
        self._cut_captions = backbone.cut_captions

    def _normalize_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        for name, default in (('mean', mean), ('std', std)):
            value = default if self._given[name] is None else self._given[name]
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    def cast_data(self, data):
        """Copy data to the device; see :meth:`mmengine.model.BaseDataPreprocessor.cast_data`.

        Tensors are always copied to a GPU from pinned memory: a copy from pageable memory may block the host.
        """
        if (isinstance(data, Tensor) and self.non_blocking and self.device.type == 'cuda'
                and data.device.type == 'cpu' and not data.is_pinned()):
            data = data.pin_memory()
        return super().cast_data(data)

    def normalize(self, frames: Tensor) -> Tensor:
        """Convert uint8 frames [..., 3, H, W] to normalized float32 frames."""
        return (frames.float() / 255 - self.mean) / self.std

    def forward(self, data: dict, training: bool = False) -> dict:
        """Build a batch.

        Args:
            data (dict): ``inputs``: list of B uint8 tensors [F, 3, H, W]; ``data_samples``: list of B
                :class:`VideoTextDataSample` with ``tokens`` [n, L] and metainfo ``video_index``, ``num_frames``.
            training (bool): Ignored; training and evaluation use the same batch.

        Returns:
            dict: ``frames`` [B, F, 3, H, W] float32, ``frame_mask`` [B, F] bool or None, ``tokens`` [T, L'] int64, cut
            where the backbone allows it, ``text_video`` [T] int64 (row of each text's video), ``video_index`` [B]
            int64, ``data_samples``.
        """
        samples = data['data_samples']
        # stacked on the device: tensors that the data loader has pinned are copied directly
        frames = torch.stack([self.cast_data(video) for video in data['inputs']])  # B x [F, 3, H, W] -> [B, F, 3, H, W]
        tokens = torch.cat([s.tokens for s in samples])  # B x [n, L] -> [T, L]
        if self._cut_captions is not None:  # here, while the ids are on the CPU: reading them needs no synchronization
            tokens = self._cut_captions(tokens)
        counts = torch.tensor([len(s.tokens) for s in samples])
        return dict(
            frames=self.normalize(frames),
            frame_mask=self.frame_mask([s.get('num_frames', frames.shape[1]) for s in samples], frames.shape[1]),
            tokens=self.cast_data(tokens),
            text_video=self.cast_data(torch.arange(len(samples)).repeat_interleave(counts)),
            video_index=self.cast_data(torch.tensor([s.video_index for s in samples])),
            data_samples=samples)

    def frame_mask(self, real: Sequence[int], num_frames: int) -> Tensor | None:
        """Return a mask of the frames that are not padding.

        Args:
            real (Sequence[int]): Number of frames of each video before it is filled up, [B].
            num_frames (int): Number of frames after it is filled up (F).

        Returns:
            Tensor | None: [B, F] bool, False where a frame is padding; None if nothing is masked.
        """
        real = torch.tensor(real)
        if self.short_videos == 'repeat' or bool((real >= num_frames).all()):
            return None
        return self.cast_data(torch.arange(num_frames)[None] < real[:, None])  # [B, F]
