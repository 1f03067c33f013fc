"""Own transforms and mmaction2's together, from file to packed sample."""
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image

from tests.videos import encode_video, read_index
from vop_mm.datasets.transforms import PackVideoText, TokenizeText, split_pipeline
from vop_mm.registry import TOKENIZERS, TRANSFORMS
from vop_mm.structures import VideoTextDataSample


@TOKENIZERS.register_module(force=True)
class LengthTokenizer:
    """A caption's tokens are the lengths of its words."""

    def __init__(self, context_length: int = 8) -> None:
        self.context_length = context_length

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = [[len(word) for word in text.split()] for text in texts]
        return torch.tensor([(row + [0] * self.context_length)[:self.context_length] for row in rows])


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('vop_mm'):
        yield


def build(*steps) -> Compose:
    return Compose([TRANSFORMS.build(step) for step in steps])


READ = dict(type='ReadClip', num_frames=4)
END = [dict(type='TokenizeText', tokenizer=dict(type='LengthTokenizer')), dict(type='PackVideoText')]


def item(path, **more) -> dict:
    return dict(filename=path, video_id='v7', video_index=3, captions=['a bb', 'ccc'], **more)


def test_evaluation_pipeline_equals_clips_preprocessing_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    frames = [np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), 10, 0), 10, 1) for _ in range(8)]
    path = encode_video(tmp_path / 'a.mp4', frames)
    decoded = build(READ)(item(path))['imgs']
    packed = build(dict(READ, size=32), dict(type='mmaction.CenterCrop', crop_size=32), *END)(item(path))
    assert packed['inputs'].shape == (4, 3, 32, 32) and packed['inputs'].dtype == torch.uint8
    for frame, image in zip(packed['inputs'], decoded, strict=True):
        by_hand = Image.fromarray(image).resize((42, 32), Image.BICUBIC).crop((5, 0, 37, 32))
        np.testing.assert_array_equal(frame.permute(1, 2, 0).numpy(), np.asarray(by_hand))


def test_training_pipeline_crops_and_flips_all_frames_alike(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 3, size=(60, 80))  # fewer frames than 4: the last one twice
    pipeline = build(READ, dict(type='mmaction.RandomResizedCrop', area_range=(0.5, 1.0)),
                     dict(type='ResizeFrames', size=(24, 24)), dict(type='mmaction.Flip', flip_ratio=1.0), *END)
    packed = pipeline(item(path))
    assert packed['inputs'].shape == (4, 3, 24, 24)
    assert torch.equal(packed['inputs'][2], packed['inputs'][3])
    assert packed['data_samples'].num_frames == 3


def test_flip_mirrors_also_repeated_frames_once(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 2)
    plain, flipped = (build(READ, dict(type='mmaction.Flip', flip_ratio=ratio), *END)(item(path))
                      for ratio in (0., 1.))
    assert torch.equal(flipped['inputs'], plain['inputs'].flip(-1))


def test_painted_frames_survive_to_the_packed_sample(tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 25)
    packed = build(dict(READ, num_frames=12, size=(40, 40)), *END)(item(path))
    indices = [read_index(frame.permute(1, 2, 0).numpy()) for frame in packed['inputs']]
    assert indices == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 23]


def test_colors_are_rgb(tmp_path):
    red = np.zeros((48, 80, 3), np.uint8)
    red[..., 0] = 255
    packed = build(READ, *END)(item(encode_video(tmp_path / 'a.mp4', [red] * 4)))
    means = packed['inputs'].float().mean(dim=(0, 2, 3))
    assert means[0] > 240 and means[1] < 15 and means[2] < 15


def test_packed_sample(tmp_path):
    frames = [np.full((5, 6, 3), i, np.uint8) for i in range(3)]
    results = item('a.mp4', imgs=frames, tokens=torch.ones(2, 8, dtype=torch.int64), num_frames=2, kind='event',
                   start=1.5, secret=1, unreadable=[('b.mp4', 'gone')])
    packed = PackVideoText(meta_keys=('kind', 'start', 'absent'))(results)
    sample = packed['data_samples']
    assert isinstance(sample, VideoTextDataSample)
    assert torch.equal(packed['inputs'][:, 0, 0, 0], torch.tensor([0, 1, 2], dtype=torch.uint8))
    assert packed['inputs'].is_contiguous()
    assert {k: sample.get(k) for k in sample.metainfo_keys()} == dict(
        video_id='v7', video_index=3, captions=['a bb', 'ccc'], filename='a.mp4', num_frames=2, kind='event', start=1.5,
        unreadable=[('b.mp4', 'gone')])
    assert torch.equal(sample.tokens, results['tokens'])
    defaults = PackVideoText()(item('a.mp4', imgs=frames, tokens=results['tokens']))['data_samples']
    assert defaults.num_frames == 3 and defaults.unreadable == []


def test_packing_refuses_what_is_not_uint8_rgb():
    with pytest.raises(ValueError, match='uint8 RGB'):
        PackVideoText()(item('a.mp4', imgs=[np.zeros((4, 4, 3), np.float32)], tokens=torch.ones(2, 8)))


def test_all_captions_are_tokenised():
    transform = TokenizeText(tokenizer=dict(type='LengthTokenizer', context_length=3))
    tokens = transform(dict(captions=['a bb', 'ccc dd e ff']))['tokens']
    assert tokens.dtype == torch.int64 and tokens.tolist() == [[1, 2, 0], [3, 2, 1]]
    transform.tokenizer = lambda texts: torch.zeros(1, 3)
    with pytest.raises(ValueError, match='of 2 captions'):
        transform(dict(captions=['a', 'b']))


def test_unknown_transform_is_named():
    with pytest.raises(KeyError, match='NoSuchTransform'):
        build(dict(type='NoSuchTransform'))


def test_the_parts_of_a_pipeline():
    crop = dict(type='mmaction.CenterCrop', crop_size=4)
    parts = split_pipeline([READ, crop, *END])
    assert parts == (READ, [crop], *END) and parts.read is not READ
    assert split_pipeline([dict(READ, type='vop_mm.ReadClip'), *END]).augment == []


@pytest.mark.parametrize('pipeline, says', [
    ([], 'got empty'), ([READ], 'got ReadClip'), (END, 'TokenizeText, PackVideoText'),
    ([dict(type='mmcv.LoadImageFromFile'), *END], 'got mmcv.LoadImageFromFile, TokenizeText'),
    ([dict(type='ResizeFrames'), READ, *END], 'got ResizeFrames, ReadClip')])
def test_a_pipeline_of_another_form_is_named(pipeline, says):
    with pytest.raises(ValueError, match=says):
        split_pipeline(pipeline)
