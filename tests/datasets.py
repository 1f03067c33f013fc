"""A data set of painted videos, and what is in its items."""
import json

import torch

from tests.videos import read_index
from vop_mm.datasets import VideoTextDataset
from vop_mm.registry import DATASETS, TOKENIZERS


@TOKENIZERS.register_module(force=True)
class FirstLetterTokenizer:
    """A caption's only token is its first letter's code."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[ord(text[0])] for text in texts])


PIPELINE = [
    dict(type='ReadClip', num_frames=2, mode='random'),
    dict(type='ResizeFrames', size=(20, 40)),
    dict(type='TokenizeText', tokenizer=dict(type='FirstLetterTokenizer')),
    dict(type='PackVideoText')
]


def annotation(folder, videos: dict[str, list[str]]) -> str:
    data = [dict(video_id=name, video=f'{name}.mp4', captions=captions) for name, captions in videos.items()]
    (folder / 'a.json').write_text(json.dumps(dict(metainfo=dict(dataset='made', split='x'), data_list=data)))
    return 'a.json'


def build(folder, **kwargs) -> VideoTextDataset:
    defaults = dict(type='vop_mm.VideoTextDataset', ann_file='a.json', data_root=str(folder),
                    data_prefix=dict(video='videos'), pipeline=PIPELINE)
    return DATASETS.build(dict(defaults, **kwargs))


def indices(item) -> list[int]:
    return [read_index(frame.permute(1, 2, 0).numpy()) for frame in item['inputs']]
