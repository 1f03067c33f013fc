"""From the files of a benchmark to metrics, by the commands of the docs: convert, check, cache, train, evaluate."""
import json

import pytest

from tests.raw_annotations import write_msrvtt, write_msvd
from tests.tools import ROOT, run_tool
from tests.videos import encode_video
from vop_mm.datasets import read_annotation

# a CLIP of CLIP's own words and picture size, and few parameters
ARCH = ('{_delete_: true, embed_dim: 16, quick_gelu: true, '
        'vision_cfg: {image_size: 224, patch_size: 112, width: 32, layers: 2, head_width: 16}, '
        'text_cfg: {context_length: 77, vocab_size: 49408, width: 32, heads: 2, layers: 2}}')
SMALL = ['--cfg-options', f'model.backbone.arch={ARCH}', 'model.backbone.weights=None', 'train_dataloader.batch_size=4',
         'train_cfg.max_epochs=2', 'param_scheduler.0.T_max=2', *(
             f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
             for option in ('num_workers=0', 'persistent_workers=False', 'pin_memory=False'))]


@pytest.fixture(params=['msrvtt', 'msvd'])
def raw(request, tmp_path):
    """Name of the benchmark, and a folder to work in with ``raw/`` and the videos where the configs look for them."""
    name = request.param
    (tmp_path / 'raw').mkdir()
    videos = tmp_path / 'data' / name / 'videos'
    videos.mkdir(parents=True)
    if name == 'msrvtt':
        write_msrvtt(tmp_path / 'raw', num_9k=10, num_7k=8, num_test=4, captions_each=2)
        files = [f'video{i}.mp4' for i in range(14)]
    else:
        write_msvd(tmp_path / 'raw', num_train=8, num_val=1, num_test=4)
        files = [f'-vid{i:04d}_{i}_{i + 10}.avi' for i in range(13)]
    for i, file in enumerate(files):
        encode_video(videos / file, 20, first=30 * i, codec='h264' if file.endswith('mp4') else 'mpeg4')
    (videos / files[1]).write_bytes(b'not a video')
    return name, tmp_path, files[1]


def run(folder, tool, *arguments):
    done = run_tool(tool, *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_from_raw_files_to_metrics(raw):
    name, folder, broken = raw
    config, data = ROOT / f'configs/vop/vop_{name}.py', folder / 'data' / name
    train = 'train_9k' if name == 'msrvtt' else 'train'
    run(folder, f'tools/dataset_converters/{name}.py', 'raw', data, '--video-dir', data / 'videos', '--dev-fraction',
        '0.25')
    annotated = {split: len(read_annotation(str(data / f'{split}.json'))[1]) for split in (train, 'dev', 'test')}
    assert annotated == dict({train: 8, 'dev': 2, 'test': 4} if name == 'msrvtt' else {train: 6, 'dev': 2, 'test': 4})

    bad = []
    for split in annotated:
        file = data / f'{split}.json'
        done = run_tool('tools/data/check_dataset.py', file, '--video-dir', data / 'videos', '--quarantine',
                        data / 'fit.json', cwd=folder)
        bad += [split] * done.returncode
        (data / 'fit.json').rename(file)
        assert broken not in file.read_text()
    assert len(bad) == 3 and len(set(bad)) == 1  # exit status 3, of one split

    run(folder, 'tools/data/cache_frames.py', config, '--out', 'frames', *SMALL)
    metrics = []
    for options in ([], ['frames_from=frames']):
        work_dir = folder / f'work{len(options)}'
        done = run(folder, 'tools/train.py', config, '--work-dir', work_dir, *SMALL, *options)
        assert 'Epoch(val) [2]' in done.stdout + done.stderr
        best = sorted(work_dir.glob('best_*.pth'))[-1]
        run(folder, 'tools/test.py', config, best, '--work-dir', work_dir, '--json', folder / 'm.json', *SMALL,
            *options)
        metrics.append(json.loads((folder / 'm.json').read_text()))
    assert metrics[0] == metrics[1] and metrics[0]['num_videos'] == 4 - (bad[0] == 'test')
    assert metrics[0]['protocol'] == dict(msrvtt='1:1', msvd='multi-caption')[name]
