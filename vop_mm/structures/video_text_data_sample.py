"""Data sample of one video and its captions."""
from mmengine.structures import BaseDataElement


class VideoTextDataSample(BaseDataElement):
    """Data sample of a video with one caption (training) or all its captions (evaluation).

    Data fields:

    * ``tokens`` (Tensor): int64 [n, L], one row per caption;
    * ``video_feature`` (Tensor): features that the model's head keeps of the video, set by the retriever's ``predict``:
      [D], unit norm, for a cosine;
    * ``text_features`` (Tensor): features that it keeps of the captions, set likewise: [n, D], unit norm, for a cosine;
    * ``frame_mask`` (Tensor): bool [F], False where a frame is padding, set likewise; only if padding is masked.

    Metainfo: ``video_id``, ``video_index`` (int), ``num_frames`` (number of real frames, <= F), ``captions`` (list of
    str), ``filename``, ``unreadable`` (list of ``(path, reason)``; in training, the videos that this sample replaces;
    in evaluation, a sample where it is not empty is not counted), and whatever else the pipeline packs.

    Examples:
        >>> sample = VideoTextDataSample(metainfo=dict(video_id='video7', video_index=0))
        >>> sample.tokens = torch.zeros(20, 77, dtype=torch.int64)
        >>> sample.video_id, len(sample.tokens)
        ('video7', 20)
    """
