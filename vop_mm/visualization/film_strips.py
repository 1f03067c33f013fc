"""Videos as film strips: some frames of each, side by side."""
import numpy as np


class FilmStrips:
    """Film strips of the videos in a dataset's config by id, of a height in pixels; each video is decoded once."""

    def __init__(self, dataset: dict, num_frames: int, height: int = 120) -> None:
        from vop_mm.registry import DATASETS
        from vop_mm.utils import register_all_modules

        register_all_modules()
        # frames for viewing are not cropped or flipped
        pipeline = [dict(type='ReadClip', num_frames=num_frames, pad=None)]
        self._dataset = DATASETS.build({**dataset, 'pipeline': pipeline, 'test_mode': True, 'on_unreadable': 'error'})
        self._index = {self._dataset.get_data_info(i)['video_id']: i for i in range(len(self._dataset))}
        self._height = height
        self._strips: dict[str, np.ndarray] = {}

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return a video's frames side by side with a gap between them, [H, n * (W + 2) - 2, 3] uint8."""
        if video_id not in self._strips:
            import cv2

            frames = self._dataset[self._index[video_id]]['imgs']  # n x [H, W, 3]
            size = round(frames[0].shape[1] * self._height / frames[0].shape[0]), self._height
            frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
            gap = np.full((self._height, 2, 3), 255, np.uint8)
            self._strips[video_id] = np.concatenate([x for frame in frames for x in (gap, frame)][1:], axis=1)
        return self._strips[video_id]
