"""Rankings of videos for the captions of a split."""
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vop_mm.evaluation.dump import read_dump


class Rankings(NamedTuple):
    """Results of a method on a split of T texts and V videos."""
    video_ids: list[str]
    captions: list[str]
    text_to_video: np.ndarray  # row of each text's video, [T]
    similarity: np.ndarray  # [T, V]

    def rank(self, text: int) -> int:
        """Return the rank of a text's own video, from 1; it comes last among equal scores."""
        row = self.similarity[text]
        return int((row >= row[self.text_to_video[text]]).sum())

    def top(self, text: int, k: int) -> list[int]:
        """Return the columns of a text's k best videos; its own comes last among equal scores."""
        own = np.arange(len(self.video_ids)) == self.text_to_video[text]
        return np.lexsort((own, -self.similarity[text]))[:k].tolist()


def load_rankings(path: str | Path) -> Rankings:
    """Read the ``.npz`` file of ``tools/test.py --dump``, and compare all texts with all videos.

    Raises:
        ValueError: The file lacks an array, or is damaged.
    """
    data = read_dump(path, 'video_ids', 'captions', 'text_to_video', 'text_features', 'video_features')
    return Rankings([str(x) for x in data['video_ids']], [str(x) for x in data['captions']], data['text_to_video'],
                    data['text_features'] @ data['video_features'].T)


def choose_queries(methods: dict[str, Rankings], number: int, seed: int = 0) -> list[int]:
    """Draw random queries to show, as rows of the similarity matrices of all methods.

    Raises:
        ValueError: The methods were not evaluated on the same texts.
    """
    first, *others = methods.values()
    for other in others:
        if other.captions != first.captions or other.video_ids != first.video_ids:
            raise ValueError('the features are not of the same split')
    return random.Random(seed).sample(range(len(first.captions)), min(number, len(first.captions)))
