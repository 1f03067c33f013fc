"""The data sets' configs, on made files in the place of the real ones."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from tests.videos import encode_video, read_index
from vop_mm.config.preprocessing import use_declared
from vop_mm.registry import TOKENIZERS

CONFIGS = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'


@TOKENIZERS.register_module(force=True)
class ConstantTokenizer:
    """Every caption is one token."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.ones(len(texts), 1, dtype=torch.int64)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem)
def test_frames_are_sampled_by_number_as_in_the_papers(path):
    cfg = Config.fromfile(path)
    for phase in ('train', 'val', 'test'):
        read = cfg[f'{phase}_dataloader'].dataset.pipeline[0]
        assert (read.type, read.sampling) == ('ReadClip', 'number')


@pytest.mark.parametrize('name, size, splits', [('demo', 40, ('train', 'dev', 'test')),
                                                ('msrvtt', 224, ('train_9k', 'dev', 'test'))])
def test_batches_of_every_split(tmp_path, name, size, splits):
    (tmp_path / 'videos').mkdir()
    for i in range(3):
        encode_video(tmp_path / 'videos' / f'v{i}.mp4', 25, size=(48, 80))
    for number, split in enumerate(splits):
        data = [dict(video_id=f'{split}{i}', video=f'v{i}.mp4', captions=['a', 'b'][:1 + number % 2]) for i in range(3)]
        (tmp_path / f'{split}.json').write_text(json.dumps(dict(metainfo=dict(split=split), data_list=data)))
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    if name != 'demo':  # frames are the backbone's
        cfg.model = dict(backbone=dict(type='OpenCLIP', arch='ViT-B-32-quickgelu'))
        use_declared(cfg)
    with DefaultScope.overwrite_default_scope('vop_mm'):
        for phase, split in zip(('train', 'val', 'test'), splits, strict=True):
            loader = cfg[f'{phase}_dataloader']
            assert loader.persistent_workers and loader.num_workers and loader.dataset.ann_file == f'{split}.json'
            loader.update(num_workers=0, persistent_workers=False, pin_memory=False, batch_size=3)
            loader.dataset.data_root = str(tmp_path)
            for step in loader.dataset.pipeline:
                if step.type == 'TokenizeText':
                    step.tokenizer = dict(type='ConstantTokenizer')
            batch = next(iter(Runner.build_dataloader(loader, seed=0)))
            assert [tuple(frames.shape) for frames in batch['inputs']] == [(12, 3, size, size)] * 3
            assert {sample.video_id for sample in batch['data_samples']} == {f'{split}{i}' for i in range(3)}
            if name == 'demo':
                assert [read_index(frame.permute(1, 2, 0).numpy()) for frame in batch['inputs'][0]] == [
                    0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 23]
