"""The picture of what the model sees."""
import json

import cv2
import numpy as np
import pytest

from tests.tools import run_tool
from tests.videos import encode_video
from vop_mm.visualization.dataset_figure import draw_samples, load_samples

TOKENIZER = dict(type='WordTokenizer', vocab='demo/mini_clip/vocab.txt', context_length=32)
PIPELINE = [
    dict(type='ReadClip', num_frames=4, mode='random', size=(40, 40)),
    dict(type='TokenizeText', tokenizer=TOKENIZER),
    dict(type='PackVideoText', meta_keys=('kind', ))
]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """A long clip, whose frames get brighter by 4 each, a short one, and one that can't be decoded."""
    folder = tmp_path_factory.mktemp('split')
    for name, count in (('long', 40), ('short', 3)):
        frames = [np.full((64, 80, 3), 20 + 4 * i, np.uint8) for i in range(count)]
        encode_video(folder / f'{name}.mp4', frames, fps=8)
    (folder / 'broken.mp4').write_bytes(b'nothing')
    (folder / 'train.json').write_text(json.dumps(dict(metainfo={}, data_list=[
        dict(video_id=name, video=f'{name}.mp4', captions=[f'the {name} one', 'again $x^2'])
        for name in ('long', 'short', 'broken')])))
    return dict(type='VideoTextDataset', data_root=str(folder), ann_file='train.json', data_prefix=dict(video=''),
                pipeline=PIPELINE)


def test_samples_are_what_the_pipeline_gives(dataset):
    samples = load_samples(dataset, 99, seed=3)
    assert [s.captions[0] for s in samples[:4]] == ['the long one', 'again $x^2', 'the short one', 'again $x^2']
    long, short, broken = samples[0], samples[2], samples[4]
    assert long.frames.shape == (4, 40, 40, 3) and long.num_frames == 4
    # the time says which frame of the file it is, and so does its brightness
    indices = [round(t * 8) for t in long.times]
    assert long.frames.mean(axis=(1, 2, 3)) == pytest.approx([20 + 4 * i for i in indices], abs=2)
    assert [i // 10 for i in indices] == [0, 1, 2, 3]  # one of each quarter
    assert short.num_frames == 3 and short.times == [0, 1 / 8, 2 / 8, 2 / 8]
    assert broken.video_id in ('long', 'short') and len(broken.unreadable) == 1
    assert load_samples(dataset, 99, seed=3)[0].times == long.times
    assert any(load_samples(dataset, 99, seed=3, epoch=e)[0].times != long.times for e in (1, 2, 3))
    assert len(load_samples(dataset, 2)) == 2


def test_the_picture_shows_every_frame(dataset, tmp_path):
    samples = load_samples(dataset, 99)
    draw_samples(samples, tmp_path / 'new' / 'a.png')
    picture = cv2.imread(str(tmp_path / 'new' / 'a.png'), cv2.IMREAD_GRAYSCALE)
    first = samples[0]
    for frame in first.frames:
        assert (np.abs(picture[:picture.shape[0] // len(samples)].astype(int) - frame.mean()) <= 2).sum() > 3000


def test_a_pipeline_with_another_end_is_refused(dataset):
    with pytest.raises(ValueError, match='a pipeline must be ReadClip, .*, PackVideoText; got'):
        load_samples({**dataset, 'pipeline': PIPELINE[:2]}, 1)


def test_from_the_command_line(demo_folder):
    arguments = ['configs/vop/vop_demo.py', demo_folder / 'out.png', '--cfg-options', *(
        f'{split}_dataloader.dataset.data_root={demo_folder / "data/demo"}' for split in ('train', 'test'))]
    done = run_tool('tools/visualizations/browse_dataset.py', *arguments[:2], '--split', 'test', '--num-samples', '2',
                    *arguments[2:])
    assert done.returncode == 0, done.stderr
    assert '2 samples of test' in done.stdout and cv2.imread(str(demo_folder / 'out.png')).std() > 5
    done = run_tool('tools/visualizations/browse_dataset.py', 'configs/vop/vop_demo.py', demo_folder / 'b.png',
                    '--cfg-options', 'train_dataloader.dataset.data_root=/no/such')
    assert done.returncode == 1 and '/no/such' in done.stderr and not (demo_folder / 'b.png').exists()
