"""Data set and hooks in a run of MMEngine's runner."""
import hashlib
import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from tests.videos import encode_video
from vop_mm.datasets import TooManyUnreadableVideosError
from vop_mm.registry import HOOKS, MODELS, TOKENIZERS


@TOKENIZERS.register_module(force=True)
class NoTokenizer:
    """Every caption is one token."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.ones(len(texts), 1, dtype=torch.int64)


@MODELS.register_module(force=True)
class NoModel(BaseModel):
    """Trains one number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, data_samples, mode: str):
        return dict(loss=self.weight * 1.0)


@HOOKS.register_module(force=True)
class SeenHook(Hook):
    """Remembers what was trained on, by epoch."""

    def __init__(self, seen: dict) -> None:
        self.seen = seen

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        for frames in data_batch['inputs']:
            self.seen.setdefault(runner.epoch, []).append(hashlib.md5(frames.numpy().tobytes()).hexdigest())

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        # MMEngine's own hook saves its logs as objects, which safe loading refuses; they are not what is tested here
        checkpoint['message_hub'] = dict(log_scalars={}, runtime_info={}, resumed_keys={})


def run(folder, work_dir, seen: dict, seed: int = 3, resume: str | None = None, max_share: float = 0.2,
        num_workers: int = 2) -> None:
    pipeline = [dict(type='ReadClip', num_frames=3, mode='random'),
                dict(type='mmaction.RandomResizedCrop', area_range=(0.3, 1.0)),
                dict(type='ResizeFrames', size=(16, 16)), dict(type='mmaction.Flip'),
                dict(type='TokenizeText', tokenizer=dict(type='NoTokenizer')), dict(type='PackVideoText')]
    runner = Runner(
        model=dict(type='NoModel'), work_dir=str(work_dir), default_scope='vop_mm', experiment_name=str(work_dir),
        train_dataloader=dict(
            batch_size=2, num_workers=num_workers, persistent_workers=num_workers > 0,
            sampler=dict(type='DefaultSampler', shuffle=True), collate_fn=dict(type='pseudo_collate'),
            dataset=dict(type='VideoTextDataset', ann_file=str(folder / 'a.json'), data_prefix=dict(video=str(folder)),
                         pipeline=pipeline)),
        train_cfg=dict(by_epoch=True, max_epochs=3), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='SetEpochHook'), dict(type='UnreadableVideoHook', max_share=max_share),
                      dict(type='SeenHook', seen=seen)],
        randomness=dict(seed=seed), load_from=resume, resume=resume is not None, log_level='WARNING')
    try:
        runner.train()
    finally:
        # garbage collection would close the workers' queues before it tells them to end: they would wait for 5 seconds
        runner.train_dataloader._iterator = None


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        encode_video(tmp_path / f'v{i}.mp4', 40, first=50 * i)
    (tmp_path / 'a.json').write_text(json.dumps({f'v{i}.mp4': ['a'] for i in range(6)}))
    return tmp_path


@pytest.mark.slow
def test_a_resumed_run_sees_what_the_whole_one_saw(folder, tmp_path):
    whole, resumed, other, single = {}, {}, {}, {}
    run(folder, tmp_path / 'whole', whole)
    assert sorted(whole) == [0, 1, 2] and all(len(frames) == 6 for frames in whole.values())
    assert len({frame for frames in whole.values() for frame in frames}) == 18  # every epoch draws anew
    run(folder, tmp_path / 'resumed', resumed, resume=str(tmp_path / 'whole' / 'epoch_1.pth'))
    assert resumed == {1: whole[1], 2: whole[2]}
    run(folder, tmp_path / 'single', single, num_workers=0)
    assert single == whole
    run(folder, tmp_path / 'other', other, seed=4)
    assert not set(other[0]) & set(whole[0])


@pytest.mark.slow
def test_training_goes_on_with_few_broken_videos_and_stops_with_many(folder, tmp_path):
    (folder / 'v2.mp4').write_bytes(b'broken')
    seen = {}
    run(folder, tmp_path / 'on', seen)
    assert [len(frames) for frames in seen.values()] == [6, 6, 6]
    log = next((tmp_path / 'on').rglob('*.log')).read_text()
    assert log.count(f"can't decode {folder / 'v2.mp4'}: not a video") == 1
    assert log.count('1 of 6 training samples of epoch') == 3
    with pytest.raises(TooManyUnreadableVideosError, match=r'1 of 6 training samples \(16.7%\).*v2\.mp4'):
        run(folder, tmp_path / 'stops', seen, max_share=0.1)
    assert not list((tmp_path / 'stops').glob('*.pth'))
