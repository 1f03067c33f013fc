"""Figure of samples of a dataset as the model sees them."""
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vop_mm.utils.cli import printable
from vop_mm.utils.files import atomic_write


class Sample(NamedTuple):
    """Sample of a dataset after its pipeline."""
    video_id: str  # of the annotated video
    captions: list[str]  # one in training, otherwise all of the video
    frames: np.ndarray  # [F, H, W, 3] uint8 RGB
    num_frames: int  # number of real frames; the frames after them repeat the last one
    times: list[float]  # of each frame, in seconds from the video's first frame
    unreadable: list  # videos that couldn't be decoded and were replaced by this one


def load_samples(dataset: dict, number: int, seed: int = 0, epoch: int = 0) -> list[Sample]:
    """Draw random samples of a dataset's config, in its order, and run the pipeline on them as in a training epoch.

    Raises:
        ValueError: The pipeline has an unsupported form.
    """
    from vop_mm.datasets.transforms import split_pipeline
    from vop_mm.registry import DATASETS
    from vop_mm.utils import register_all_modules

    register_all_modules()
    *steps, pack = dataset['pipeline']
    split_pipeline([*steps, pack])
    pack = dict(pack, meta_keys=(*pack.get('meta_keys', ()), 'frame_times'))
    built = DATASETS.build({**dataset, 'pipeline': [*steps, pack]})
    built.set_epoch(epoch, seed)
    chosen = sorted(random.Random(seed).sample(range(len(built)), min(number, len(built))))
    return [_sample(built[i]) for i in chosen]


def _sample(packed: dict) -> Sample:
    meta = packed['data_samples'].metainfo
    frames = packed['inputs'].numpy().transpose(0, 2, 3, 1)  # [F, 3, H, W] -> [F, H, W, 3]
    return Sample(meta['video_id'], list(meta['captions']), frames, meta['num_frames'],
                  meta['frame_times'].tolist(), meta['unreadable'])


def draw_samples(samples: list[Sample], path: str | Path) -> None:
    """Draw one row per sample into a PNG file: its captions above, its frames with their times below."""
    from matplotlib.figure import Figure

    columns = max(len(sample.frames) for sample in samples)
    height, width = samples[0].frames.shape[1:3]
    figure = Figure(figsize=(columns, len(samples) * (height / width + 0.55) + 0.1))
    for row, (part, sample) in enumerate(zip(figure.subfigures(len(samples), 1, squeeze=False)[:, 0], samples,
                                             strict=True)):
        part.set_facecolor('white' if row % 2 else '#f4f4f4')
        part.text(0.006, 0.97, _title(sample), va='top', fontsize=9, parse_math=False)
        for i, axes in enumerate(part.subplots(1, columns, squeeze=False)[0]):
            axes.set_axis_off()
            if i < len(sample.frames):
                real = i < sample.num_frames
                axes.imshow(sample.frames[i], alpha=1. if real else 0.35)
                label = 'padding' if not real else f'{sample.times[i]:.2f} s'
                axes.text(0.5, -0.05, label, transform=axes.transAxes, ha='center', va='top', fontsize=7, color='0.3')
        part.subplots_adjust(left=0.004, right=0.996, bottom=0.14, top=0.80, wspace=0.04)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format='png', dpi=120)


def _title(sample: Sample) -> str:
    more = f' and {len(sample.captions) - 1} more' if len(sample.captions) > 1 else ''
    instead = f', in place of {len(sample.unreadable)} unreadable' if sample.unreadable else ''
    return f'{printable(sample.video_id)}{instead}: “{_shorten(printable(sample.captions[0]), 120)}”{more}'


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length - 1] + '…'
