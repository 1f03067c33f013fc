"""What queries find, as film strips: right ones framed green, wrong ones red (VoP, Figure 4)."""
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vop_mm.utils.files import atomic_write

_GREEN, _RED, _GREY = '#2ca02c', '#d62728', '#888888'


class Rankings(NamedTuple):
    """One method's results on a split.

    Attributes:
        video_ids (list[str]): Of the V videos.
        captions (list[str]): Of the T texts.
        text_to_video (np.ndarray): Row of each text's video, [T].
        similarity (np.ndarray): [T, V].
    """
    video_ids: list[str]
    captions: list[str]
    text_to_video: np.ndarray
    similarity: np.ndarray

    def rank(self, text: int) -> int:
        """Rank of a text's own video, from 1; of equal ones it comes last."""
        row = self.similarity[text]
        return int((row >= row[self.text_to_video[text]]).sum())


def load_rankings(path: str | Path) -> Rankings:
    """Read what the metric dumped.

    Args:
        path (str | Path): ``.npz`` of ``tools/test.py --dump``.

    Returns:
        Rankings: With the similarities of all texts with all videos.

    Raises:
        ValueError: The file lacks what the metric writes.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return Rankings([str(x) for x in data['video_ids']], [str(x) for x in data['captions']],
                            data['text_to_video'], data['text_features'] @ data['video_features'].T)
    except (KeyError, OSError, ValueError) as e:
        raise ValueError(f'{path} is not a file of tools/test.py --dump: {e}') from e


def choose_queries(methods: dict[str, Rankings], number: int, seed: int = 0) -> list[int]:
    """Queries to show: drawn at random, the same for all methods.

    Args:
        methods (dict[str, Rankings]): By name, all of one split.
        number (int): How many.
        seed (int): Of the draw.

    Returns:
        list[int]: Rows of the similarity matrices.

    Raises:
        ValueError: The methods were not evaluated on the same texts.
    """
    first, *others = methods.values()
    for other in others:
        if other.captions != first.captions or other.video_ids != first.video_ids:
            raise ValueError('the features are not of the same split')
    return random.Random(seed).sample(range(len(first.captions)), min(number, len(first.captions)))


def draw_retrieval(methods: dict[str, Rankings], queries: list[int], dataset: dict, num_frames: int,
                   path: str | Path) -> None:
    """Draw queries in rows and methods in columns: each one's first video, and the true one in the last column.

    Args:
        methods (dict[str, Rankings]): By name.
        queries (list[int]): Rows of the similarity matrices.
        dataset (dict): Config of the data set that the videos are in.
        num_frames (int): Frames of a film strip.
        path (str | Path): PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = next(iter(methods.values()))
    strips = _Strips(dataset, num_frames)
    figure = Figure(figsize=(3.4 * (len(methods) + 1), 1.0 * len(queries) + 0.5))
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(queries), len(methods) + 1, squeeze=False)
    for row, query in zip(grid, queries, strict=True):
        truth = first.text_to_video[query]
        for axes, method in zip(row, methods.values(), strict=False):
            found = int(method.similarity[query].argmax())
            right = found == truth
            _show(axes, strips[first.video_ids[found]], _GREEN if right else _RED)
            axes.set_xlabel('right' if right else f'wrong: the true one is at rank {method.rank(query)}', fontsize=7,
                            color=_GREEN if right else _RED, labelpad=1)
        _show(row[-1], strips[first.video_ids[truth]], _GREY)
        row[0].set_title(f'“{first.captions[query]}”', fontsize=9, loc='left', pad=3)
    for axes, name in zip(grid[0], [*methods, 'true video'], strict=True):
        axes.annotate(name, (0.5, 1), xytext=(0, 20), xycoords='axes fraction', textcoords='offset points', ha='center',
                      fontweight='bold')
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.45 / (len(queries) + 0.5), bottom=0.03, wspace=0.03,
                           hspace=0.75)
    with atomic_write(path) as file:
        figure.savefig(file, format='png', dpi=150)


def _show(axes, strip: np.ndarray, colour: str) -> None:
    axes.imshow(strip)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3)


class _Strips:
    """Film strips of a data set's videos, by id, each decoded once."""

    def __init__(self, dataset: dict, num_frames: int) -> None:
        from vop_mm.registry import DATASETS
        from vop_mm.utils import register_all_modules

        register_all_modules()
        # the first steps of the pipeline open, sample and decode; what a person looks at is not resized or cropped
        decode = [dict(type='OpenVideo'), dict(type='SampleSegments', num_frames=num_frames),
                  dict(type='mmaction.DecordDecode')]
        self._dataset = DATASETS.build({**dataset, 'pipeline': decode})
        self._index = {self._dataset.get_data_info(i)['video_id']: i for i in range(len(self._dataset))}
        self._strips: dict[str, np.ndarray] = {}

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Frames side by side, [H, F * W, 3] uint8."""
        if video_id not in self._strips:
            self._strips[video_id] = np.concatenate(self._dataset[self._index[video_id]]['imgs'], axis=1)
        return self._strips[video_id]
