"""Data preprocessor that turns collated samples into a batch on the device."""
from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from vop_mm.registry import MODELS

# normalization of OpenAI's CLIP, for pixels in 0..1
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@MODELS.register_module()
class VideoTextPreprocessor(BaseDataPreprocessor):
    """Data preprocessor that builds a batch on the device; frames are copied as uint8 and normalized there.

    Args:
        mean (Sequence[float]): Mean of each channel, for pixels in 0..1. Defaults to CLIP's.
        std (Sequence[float]): Standard deviation of each channel. Defaults to CLIP's.
        short_videos (str): Treatment of videos with fewer than F frames, which are filled up by repeating the last
            frame. ``'repeat'``: the repeated frames count like the others, as in the published code. ``'mask'``: they
            are padding and masked out. Defaults to ``'repeat'``.
        non_blocking (bool): Don't wait for copies to the device. Defaults to True.
    """

    def __init__(self, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD,
                 short_videos: str = 'repeat', non_blocking: bool = True) -> None:
        super().__init__(non_blocking)
        if short_videos not in ('repeat', 'mask'):
            raise ValueError(f"short_videos must be 'repeat' or 'mask', got {short_videos!r}")
        self.short_videos, self.non_blocking = short_videos, non_blocking
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), persistent=False)

    def cast_data(self, data):
        """Copy data to the device; see :meth:`mmengine.model.BaseDataPreprocessor.cast_data`.

        Tensors are always copied to a GPU from pinned memory: a copy from pageable memory may block the host.
        """
        if (isinstance(data, Tensor) and self.non_blocking and self.device.type == 'cuda'
                and data.device.type == 'cpu' and not data.is_pinned()):
            data = data.pin_memory()
        return super().cast_data(data)

    def normalize(self, frames: Tensor) -> Tensor:
        """Convert uint8 frames [..., 3, H, W] to CLIP-normalized float32 frames."""
        return (frames.float() / 255 - self.mean) / self.std

    def forward(self, data: dict, training: bool = False) -> dict:
        """Build a batch.

        Args:
            data (dict): ``inputs``: list of B uint8 tensors [F, 3, H, W]; ``data_samples``: list of B
                :class:`VideoTextDataSample` with ``tokens`` [n, L] and metainfo ``video_index``, ``num_frames``.
            training (bool): Ignored; training and evaluation use the same batch.

        Returns:
            dict: ``frames`` [B, F, 3, H, W] float32, ``frame_mask`` [B, F] bool or None, ``tokens`` [T, L'] int64 cut
            after the last end of text, ``text_video`` [T] int64 (row of each text's video), ``video_index`` [B]
            int64, ``data_samples``.
        """
        samples = data['data_samples']
        # stacked on the device: tensors that the data loader has pinned are copied directly
        frames = torch.stack([self.cast_data(video) for video in data['inputs']])  # B x [F, 3, H, W] -> [B, F, 3, H, W]
        tokens = torch.cat([s.tokens for s in samples])  # B x [n, L] -> [T, L]
        # Attention is causal: nothing after end of text affects the embedding. Tokens are cut here, while the ids are
        # still on the CPU and reading them needs no synchronization.
        tokens = tokens[:, :int(tokens.argmax(dim=1).max()) + 1] if len(tokens) else tokens
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
