"""One video with its captions, as model and metric see it."""
from mmengine.structures import BaseDataElement


class VideoTextDataSample(BaseDataElement):
    """A video with one caption (training) or all its captions (evaluation).

    Data fields:

    * ``tokens`` (Tensor): int64 [n, L], a row per caption;
    * ``video_feature`` (Tensor): what the model's head keeps of the video, set by the retriever's ``predict``: [D],
      unit norm, for a cosine;
    * ``text_features`` (Tensor): of its captions, likewise: [n, D], unit norm, for a cosine;
    * ``frame_mask`` (Tensor): bool [F], False where a frame is padding, likewise; only where padding is masked.

    Metainfo: ``video_id``, ``video_index`` (int), ``num_frames`` (frames that are real, <= F), ``captions`` (list of
    str), ``filename``, ``unreadable`` (list of ``(path, reason)``; in training what this sample stands in for, in
    evaluation not empty means: this sample is not to be counted), and what else the pipeline packs.

    Examples:
        >>> sample = VideoTextDataSample(metainfo=dict(video_id='video7', video_index=0))
        >>> sample.tokens = torch.zeros(20, 77, dtype=torch.int64)
        >>> sample.video_id, len(sample.tokens)
        ('video7', 20)
    """
