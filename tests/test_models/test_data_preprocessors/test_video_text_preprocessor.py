"""From collated samples to a batch."""
import open_clip
import pytest
import torch
from torchvision.transforms import functional as TF

from tests.clips import build_clip, random_tokens
from vop_mm.models.data_preprocessors import VideoTextPreprocessor
from vop_mm.structures import VideoTextDataSample


def sample(tokens, index=0, num_frames=4):
    sample = VideoTextDataSample(metainfo=dict(video_index=index, num_frames=num_frames))
    sample.tokens = tokens
    return sample


def collated():
    """Three videos with two, one and three captions; the last one has 2 real frames of 4."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(0, 256, (4, 3, 5, 6), generator=generator, dtype=torch.uint8) for _ in range(3)]
    tokens = random_tokens([5, 9, 3, 12, 4, 7])
    samples = [sample(tokens[:2], 8), sample(tokens[2:3], 3), sample(tokens[3:], 5, num_frames=2)]
    return dict(inputs=inputs, data_samples=samples), tokens


def test_frames_are_normalized_as_open_clip_does():
    data, _ = collated()
    frames = VideoTextPreprocessor()(data)['frames']
    assert frames.shape == (3, 4, 3, 5, 6) and frames.dtype == torch.float32
    for video, out in zip(data['inputs'], frames):
        for frame, mine in zip(video, out):
            picture = TF.to_tensor(frame.permute(1, 2, 0).numpy())
            theirs = TF.normalize(picture, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_mean_and_std_are_options():
    data, _ = collated()
    frames = VideoTextPreprocessor(mean=(0., 0., 0.), std=(1., 0.5, 1 / 255))(data)['frames']
    raw = torch.stack(data['inputs']).double()
    expected = raw / 255 * torch.tensor([1., 2., 255.]).view(3, 1, 1)
    torch.testing.assert_close(frames.double(), expected, rtol=1e-6, atol=0)


def test_frames_travel_as_uint8(monkeypatch):
    moved, cast = [], VideoTextPreprocessor.cast_data

    def record(self, x):
        moved.append((x.dtype, x.shape))
        return cast(self, x)

    monkeypatch.setattr(VideoTextPreprocessor, 'cast_data', record)
    VideoTextPreprocessor()(collated()[0])
    assert moved.count((torch.uint8, (4, 3, 5, 6))) == 3
    assert not [dtype for dtype, _ in moved if dtype.is_floating_point]


def test_everything_arrives_on_the_models_device():
    preprocessor = VideoTextPreprocessor().to('meta')
    batch = preprocessor(collated()[0])
    assert {k for k, v in batch.items() if isinstance(v, torch.Tensor) and v.is_meta} == {
        'frames', 'tokens', 'text_video', 'video_index'}


def test_all_is_copied_to_a_gpu_from_pinned_memory_and_nothing_waits(monkeypatch):
    copied, pinned = [], []
    monkeypatch.setattr(torch.Tensor, 'is_pinned', lambda x: any(x is p for p in pinned))
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda x: pinned.append(x) or x)

    def copy(x, device, non_blocking=False):
        copied.append((x, device.type, non_blocking))
        return x

    monkeypatch.setattr(torch.Tensor, 'to', copy)
    data, _ = collated()
    pinned.append(data['inputs'][1])  # as a data loader does with pin_memory=True: it is not copied again
    preprocessor = VideoTextPreprocessor(short_videos='mask')
    preprocessor._device = torch.device('cuda')
    preprocessor(data)
    assert len(copied) == 3 + 4 and len(pinned) == len(copied)
    assert all(x.is_pinned() and device == 'cuda' and non_blocking for x, device, non_blocking in copied)
    assert [x for x, *_ in copied][1] is data['inputs'][1]


def test_tokens_are_cut_behind_the_last_end_of_text():
    data, tokens = collated()
    preprocessor = VideoTextPreprocessor()
    preprocessor.prepare(build_clip())
    batch = preprocessor(data)
    assert torch.equal(batch['tokens'], tokens[:, :12]) and (tokens[:, 12:] == 0).all()
    assert batch['text_video'].tolist() == [0, 0, 1, 2, 2, 2]
    assert batch['video_index'].tolist() == [8, 3, 5]
    assert batch['data_samples'] is data['data_samples']


def test_captions_of_full_length_are_kept_whole():
    tokens = random_tokens([77, 3])
    data = dict(inputs=[torch.zeros(4, 3, 2, 2, dtype=torch.uint8)], data_samples=[sample(tokens)])
    assert torch.equal(VideoTextPreprocessor()(data)['tokens'], tokens)


def test_filled_up_frames_count_or_are_masked():
    data, _ = collated()
    assert VideoTextPreprocessor()(data)['frame_mask'] is None
    assert VideoTextPreprocessor(short_videos='repeat')(data)['frame_mask'] is None
    mask = VideoTextPreprocessor(short_videos='mask')(data)['frame_mask']
    assert mask.tolist() == [[True] * 4, [True] * 4, [True, True, False, False]]
    for s in data['data_samples']:
        s.set_metainfo(dict(num_frames=4))
    assert VideoTextPreprocessor(short_videos='mask')(data)['frame_mask'] is None  # no mask where nothing is padding
    with pytest.raises(ValueError, match="'repeat' or 'mask', got 'black'"):
        VideoTextPreprocessor(short_videos='black')
