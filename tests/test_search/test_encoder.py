"""Embeddings of the searcher, and prompt sets that share a CLIP."""
import json
import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tests.checkpoints import demo_config, write_checkpoint
from tests.tools import run_tool
from vop_mm.apis import VideoSearcher
from vop_mm.datasets.decoding import DecordReader
from vop_mm.engine.checkpoint import CheckpointError


def test_embeddings_are_those_of_the_test_tool(files, small_demo, demo_folder):
    cfg, checkpoint = files['f_p']
    config = demo_folder / 'config.py'
    config.write_text(cfg.pretty_text)
    done = run_tool('tools/test.py', config, checkpoint, '--dump', demo_folder / 'dump.npz', cwd=demo_folder)
    assert done.returncode == 0, done.stderr
    dump = np.load(demo_folder / 'dump.npz')
    entries = {e['video_id']: e for e in json.loads((small_demo / 'test.json').read_text())['data_list']}
    paths = [str(small_demo / 'videos' / entries[i]['video']) for i in dump['video_ids']]
    searcher = VideoSearcher(cfg, checkpoint, batch_size=5)
    videos, texts = searcher.encode_video(paths), searcher.encode_text(list(dump['captions']))
    assert videos.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(videos, dump['video_features'], atol=1e-5)
    np.testing.assert_allclose(texts, dump['text_features'], atol=1e-5)
    frames = DecordReader(paths[0])
    frames = frames.get_batch(range(len(frames))).asnumpy()
    np.testing.assert_allclose(searcher.encode_video([frames, paths[1]]), videos[:2], atol=1e-5)
    np.testing.assert_allclose(searcher.encode_video(frames), videos[:1], atol=1e-5)
    half = VideoSearcher(cfg, checkpoint, bf16=True)
    for exact, rough in ((texts, half.encode_text(list(dump['captions']))), (videos, half.encode_video(paths))):
        assert (exact * rough).sum(1).min() > 0.995 and np.abs(exact - rough).max() > 1e-5
        assert rough.dtype == np.float32
    ranked = searcher.rank_texts(paths[3], list(dump['captions']))
    scores = texts @ videos[3]
    assert [r.text for r in ranked] == [dump['captions'][i] for i in np.argsort(-scores, kind='stable')]
    np.testing.assert_allclose([r.score for r in ranked], np.sort(scores)[::-1], atol=1e-5)


def test_an_image_is_a_video_that_stands_still(files, tmp_path):
    searcher = VideoSearcher(*files['f_p'])
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / 'a.png')
    still = searcher.encode_video(np.stack([image] * 12))
    np.testing.assert_allclose(searcher.encode_image([tmp_path / 'a.png', image]), np.repeat(still, 2, 0), atol=1e-6)


def test_checkpoints_on_one_backbone_are_as_each_alone(files, small_demo):
    paths = sorted(map(str, (small_demo / 'videos').glob('*.mp4')))[:4]
    texts = ['a red square moves to the left', 'a circle']
    several = VideoSearcher(files['vop'][0], {name: files[name][1] for name in ('vop', 'f_p')})
    several.add_prompts('c', files['c'][1])
    assert several.prompts == ['vop', 'f_p', 'c']
    alone = {}
    for name in several.prompts:  # methods of different configs; each brings its own
        one = VideoSearcher(*files[name])
        alone[name] = one.encode_video(paths), one.encode_text(texts)
    for name in ('c', 'vop', 'f_p', 'vop'):
        np.testing.assert_allclose(several.encode_video(paths, prompts=name), alone[name][0], atol=1e-6)
        np.testing.assert_allclose(several.encode_text(texts, prompts=name), alone[name][1], atol=1e-6)
    assert np.abs(alone['vop'][1] - alone['c'][1]).max() > 0.01
    with pytest.raises(ValueError, match='choose one of vop, f_p, c'):
        several.encode_text(texts)
    several.remove_prompts('vop')
    with pytest.raises(ValueError, match="no prompts named 'vop'"):
        several.encode_text(texts, prompts='vop')
    np.testing.assert_allclose(several.encode_text(texts, prompts='f_p'), alone['f_p'][1], atol=1e-6)


def test_memory_grows_by_the_prompts_alone(tmp_path):
    """By what the process holds: a CLIP of 100 MB, and ten sets of prompts of a few kB."""
    arch = dict(embed_dim=64, vision_cfg=dict(image_size=32, patch_size=16, width=512, head_width=64, layers=4),
                text_cfg=dict(context_length=32, vocab_size=24000, width=256, heads=4, layers=2))
    cfg = demo_config('vop/vop_demo.py')
    torch.manual_seed(0)
    cfg.model.backbone = dict(type='OpenCLIP', arch=arch, weights=None)
    from vop_mm.registry import MODELS
    clip = MODELS.build(cfg.model.backbone)
    torch.save(clip.model.state_dict(), tmp_path / 'clip.pt')
    cfg.model.backbone.weights = str(tmp_path / 'clip.pt')
    cfg.model.frame_prompts[0].layers = cfg.model.text_prompts[0].layers = (0, 2)
    file = write_checkpoint(tmp_path / 'a.pth', cfg, 0)
    size = sum(p.nbytes for p in clip.parameters())
    del clip
    searcher = VideoSearcher(cfg, {'a': file})
    searcher.add_prompts('b', file)
    before = _resident()
    for i in range(10):
        searcher.add_prompts(f'more_{i}', file)
    assert size > 30e6
    assert _resident() - before < 0.2 * size, 'ten copies of CLIP would be 10 times its size, one would be 1'
    clips = {id(p) for s in searcher._sets.values() for p in s.model.backbone.parameters()}
    assert len(clips) == len(list(searcher._backbone.parameters()))


def _resident() -> int:
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def test_a_method_that_changes_clip_can_not_share_it(files):
    searcher = VideoSearcher(files['vop'][0], {'vop': files['vop'][1]})
    before = searcher.encode_text(['a square'])
    for name, method in (('full', 'Full'), ('partial', 'Partial'), ('adapter', r'Adapter\^ATTN')):
        with pytest.raises(CheckpointError, match=rf'method {method}\) cannot share a backbone: it changes weights'):
            searcher.add_prompts(name, files[name][1])
        with pytest.raises(ValueError, match=f'the method {method} changes CLIP itself'):
            VideoSearcher(*files[name]).add_prompts('vop', files['vop'][1])
    assert searcher.prompts == ['vop']
    np.testing.assert_array_equal(searcher.encode_text(['a square']), before)


def test_the_config_of_a_checkpoint_is_not_run(files, tmp_path):
    content = torch.load(files['vop'][1], weights_only=True)
    content['meta']['cfg'] = f"model = dict(a=__import__('os').mkdir('{tmp_path}/run'))"
    torch.save(content, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='not a plain config'):
        VideoSearcher(files['vop'][0], {'vop': tmp_path / 'evil.pth'})
    assert not (tmp_path / 'run').exists()


def test_a_tokenizer_that_names_no_unknown_words_goes_on_working(files):
    searcher = VideoSearcher(*files['vop'])
    prompts = searcher.prompt_set()
    expected, call = searcher.encode_text('a circle'), prompts.tokenizer
    prompts.tokenizer = lambda texts: call(texts)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        np.testing.assert_array_equal(searcher.encode_text('a circle'), expected)
        assert len(searcher.encode_text('a man')) == 1 and searcher.unknown_words('a man') == []
