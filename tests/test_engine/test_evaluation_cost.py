"""What an evaluation costs: every video passes the vision tower once, whatever the number of its captions."""
import itertools
import json
import os
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook

from tests.tools import ROOT, ForkedTool, free_port
from vop_mm.registry import HOOKS, TRANSFORMS

VIDEOS, CAPTIONS, FRAMES = 670, 27_763, 12  # MSVD's test split
WORDS = (ROOT / 'demo/mini_clip/vocab.txt').read_text().split()


@TRANSFORMS.register_module(force=True)
class NumberedFrames(BaseTransform):
    """In place of decoding: frames whose color is the number of their video."""

    def transform(self, results):
        number = results['video_index']
        results['imgs'] = [np.full((40, 40, 3), (number // 256, number % 256, 7), np.uint8)] * FRAMES
        return results


@HOOKS.register_module(force=True)
class CountForwards(Hook):
    """Leaves which videos and which captions passed CLIP's first layers, in the order of time."""

    def __init__(self, folder):
        self.folder, self.videos, self.captions = folder, [], []

    def before_test(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        clip, preprocessor = model.backbone, model.data_preprocessor
        embed_frames, embed_words = clip.embed_frames, clip.embed_words

        def count_frames(frames):
            pixels = ((frames[..., :1, :1] * preprocessor.std + preprocessor.mean) * 255).round().long()
            self.videos += [256 * red + green for red, green, _ in pixels.flatten(1).tolist()]
            return embed_frames(frames)

        def count_words(tokens):
            self.captions += [tuple(row[row > 0].tolist()) for row in tokens]
            return embed_words(tokens)

        clip.embed_frames, clip.embed_words = count_frames, count_words

    def after_test(self, runner):
        path = Path(self.folder) / f'{runner.rank}.json'
        path.write_text(json.dumps(dict(videos=self.videos, captions=self.captions)))


def as_rank(rank, processes, port):
    """In the tool's process: its place; what is registered above is known there."""
    if processes > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1',
                          MASTER_PORT=str(port))


@pytest.fixture(scope='module')
def annotation(tmp_path_factory):
    """As many videos and captions as MSVD has, every caption another one; some videos have one, some many."""
    captions = list(itertools.islice((' '.join(words) for words in itertools.product(WORDS, repeat=3)), CAPTIONS))
    cuts = np.sort(np.random.default_rng(0).choice(np.arange(1, CAPTIONS), VIDEOS - 1, replace=False))
    items = [dict(video_id=f'v{i}', video='none.mp4', captions=captions[start:end])
             for i, (start, end) in enumerate(itertools.pairwise([0, *cuts.tolist(), CAPTIONS]))]
    path = tmp_path_factory.mktemp('annotation') / 'test.json'
    (path.parent / 'videos').mkdir()
    (path.parent / 'videos/none.mp4').touch()  # there, and never opened
    path.write_text(json.dumps(dict(metainfo=dict(dataset='made', split='test', protocol='1:n'), data_list=items)))
    return path


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_every_video_and_every_caption_is_embedded_once(annotation, tmp_path, processes):
    tokenizer = dict(type='WordTokenizer', vocab=str(ROOT / 'demo/mini_clip/vocab.txt'), context_length=32)
    pipeline = [dict(type='NumberedFrames'), dict(type='TokenizeText', tokenizer=tokenizer), dict(type='PackVideoText')]
    arguments = ['configs/baselines/zero_shot_demo.py', '--work-dir', tmp_path / 'work', '--json', tmp_path / 'm.json',
                 '--launcher', 'pytorch' if processes > 1 else 'none', '--cfg-options',
                 f'test_dataloader.dataset.data_root={annotation.parent}',
                 f'test_dataloader.dataset.pipeline={pipeline}', 'test_dataloader.num_workers=0',
                 'test_dataloader.persistent_workers=False',
                 f'custom_hooks={[dict(type="CountForwards", folder=str(tmp_path))]}']
    port = free_port()
    with tempfile.TemporaryFile('w+') as out:
        ranks = [ForkedTool('tools/test.py', *arguments, out=out, err=out,
                            before=partial(as_rank, rank, processes, port)) for rank in range(processes)]
        try:
            assert {rank.wait(240) for rank in ranks} == {0}, out.seek(0) or out.read()
        finally:
            for rank in ranks:
                rank.kill()
    counted = [json.loads(path.read_text()) for path in sorted(tmp_path.glob('[0-9].json'))]
    assert len(counted) == processes
    videos = Counter(video for rank in counted for video in rank['videos'])
    assert videos == dict.fromkeys(range(VIDEOS), FRAMES)  # 670 forwards of a video, not 27,763
    captions = Counter(tuple(caption) for rank in counted for caption in rank['captions'])
    assert len(captions) == captions.total() == CAPTIONS
    assert max(len(rank['videos']) for rank in counted) == VIDEOS * FRAMES / processes
    found = json.loads((tmp_path / 'm.json').read_text())
    assert (found['num_videos'], found['num_texts']) == (VIDEOS, CAPTIONS)
