"""Context modules, which mix a sequence with one vector per frame."""
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from vop_mm.registry import MIXERS


class _Recurrent(BaseModule):

    def __init__(self, width: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=bidirectional)
        self.out_width = width * (2 if bidirectional else 1)

    def forward(self, x: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Mix frames.

        Args:
            x (Tensor): [B, F, C].
            frame_mask (Tensor, optional): [B, F] bool, False where a frame is padding; padding comes last.

        Returns:
            Tensor: [B, F, ``out_width``]; 0 where a frame is padding.
        """
        out = self.lstm(x)[0]  # [B, F, C']
        if frame_mask is None:
            return out
        if self.lstm.bidirectional:
            # Backwards, padding would leak into the real frames: that half is computed with the padding moved to the
            # front. (Packed sequences would do this in one pass, but have to wait for the device to know the lengths.)
            places = torch.arange(x.shape[1], device=x.device)[None]  # [1, F]
            padding = (~frame_mask).sum(dim=1, keepdim=True)  # [B, 1]
            moved = _take(x, (places - padding) % x.shape[1])
            back = _take(self.lstm(moved)[0], (places + padding) % x.shape[1])
            width = self.lstm.hidden_size
            out = torch.cat([out[..., :width], back[..., width:]], dim=-1)
        return out.masked_fill(~frame_mask[..., None], 0)


def _take(x: Tensor, places: Tensor) -> Tensor:
    """Reorder the frames of each video, [B, F, C], [B, F] -> [B, F, C]."""
    return x.gather(1, places[..., None].expand_as(x))


@MIXERS.register_module()
class BiLSTM(_Recurrent):
    """One bidirectional LSTM layer with hidden width C in each direction (the paper's choice).

    Args:
        width (int): Number of channels of a frame's vector (C).
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, bidirectional=True)


@MIXERS.register_module()
class LSTM(_Recurrent):
    """One LSTM layer with hidden width C (ablation).

    Args:
        width (int): Number of channels of a frame's vector (C).
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, bidirectional=False)


@MIXERS.register_module()
class FrameTransformer(BaseModule):
    """Transformer over the frames with a learnable position embedding (ablation).

    Args:
        width (int): Number of channels of a frame's vector (C).
        num_layers (int): Number of layers. Defaults to 4.
        num_heads (int, optional): Number of heads. Defaults to None: heads of 64 channels, but at least one.
        max_frames (int): Number of rows of the position table. Defaults to 128.
    """

    def __init__(self, width: int, num_layers: int = 4, num_heads: int | None = None, max_frames: int = 128) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, num_heads or max(width // 64, 1), 4 * width, dropout=0.,
                                           activation='gelu', batch_first=True, norm_first=True)
        # nested tensors drop padded rows at the end, which callers rely on
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.position = nn.Parameter(torch.empty(max_frames, width))
        nn.init.normal_(self.position, std=0.02)
        self.out_width = width

    def forward(self, x: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Mix frames, [B, F, C], [B, F] bool -> [B, F, C]."""
        padding = None if frame_mask is None else ~frame_mask
        return self.encoder(x + self.position[:x.shape[1]].to(x.dtype), src_key_padding_mask=padding)
