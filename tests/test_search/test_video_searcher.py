"""VideoSearcher: embeddings, prompts on one backbone, search."""
import json
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.checkpoints import demo_config, write_checkpoint
from tests.tools import run_tool
from tests.videos import broken_videos, encode_video
from vop_mm.apis import UnknownWordsWarning, VideoSearcher
from vop_mm.datasets.decoding import DecordReader
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.engine.checkpoint import CheckpointError
from vop_mm.search import IndexMismatchError, SearchIndex


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Configs and checkpoints of three methods that leave CLIP alone, and of three that don't."""
    folder = tmp_path_factory.mktemp('checkpoints')
    names = dict(vop='vop/vop_demo.py', f_p='vop/vop_f_p_demo.py', c='vop/vop_c_demo.py',
                 full='baselines/full_demo.py', partial='baselines/partial_demo.py',
                 adapter='baselines/adapter_attn_demo.py')
    made = {}
    for seed, (name, config) in enumerate(names.items()):
        cfg = demo_config(config)
        made[name] = cfg, write_checkpoint(folder / f'{name}.pth', cfg, seed)
    return made


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


def test_two_prompt_sets_in_one_process_give_what_two_processes_give(files, small_demo, tmp_path):
    videos, query = small_demo / 'videos', 'a red square moves to the left'
    one = VideoSearcher(files['vop'][0], {name: files[name][1] for name in ('vop', 'c')})
    for name in ('vop', 'c'):
        (tmp_path / f'{name}.py').write_text(files[name][0].pretty_text)
        done = run_tool('tools/index_videos.py', videos, tmp_path / name, '--config', tmp_path / f'{name}.py',
                        '--checkpoint', files[name][1])
        assert done.returncode == 0, done.stderr
        found = json.loads(run_tool('tools/search.py', tmp_path / name, query, '--json').stdout)
        one.build_index(videos, tmp_path / f'{name}_in_one', prompts=name)
        hits = one.search(query, tmp_path / f'{name}_in_one')  # each index is asked with its own prompts
        assert [hit.path for hit in hits] == [hit['path'] for hit in found]
        np.testing.assert_allclose([hit.score for hit in hits], [hit['score'] for hit in found], atol=1e-6)
        apart, together = SearchIndex(tmp_path / name), SearchIndex(tmp_path / f'{name}_in_one')
        assert apart.settings == together.settings
        for path in apart.catalogue.files():
            np.testing.assert_allclose(together.catalogue.clips_of_file(path)[1],
                                       apart.catalogue.clips_of_file(path)[1], atol=1e-6)
    with pytest.raises(IndexMismatchError, match='other settings: prompts'):
        one.search(query, tmp_path / 'vop', prompts='c')


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
        with pytest.raises(CheckpointError, match=rf'method {method}\) can not share a backbone: it changes weights'):
            searcher.add_prompts(name, files[name][1])
        with pytest.raises(ValueError, match=f'the method {method} changes CLIP itself'):
            VideoSearcher(*files[name]).add_prompts('vop', files['vop'][1])
    assert searcher.prompts == ['vop']
    np.testing.assert_array_equal(searcher.encode_text(['a square']), before)


def test_the_config_of_a_checkpoint_is_not_run(files, tmp_path):
    content = torch.load(files['vop'][1], weights_only=True)
    content['meta']['cfg'] = f"model = dict(a=__import__('os').mkdir('{tmp_path}/run'))"
    torch.save(content, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='no plain config'):
        VideoSearcher(files['vop'][0], {'vop': tmp_path / 'evil.pth'})
    assert not (tmp_path / 'run').exists()


def test_search_by_text_video_and_image(files, small_demo, tmp_path):
    several = VideoSearcher(files['vop'][0], {'vop': files['vop'][1], 'c': files['c'][1]})
    report = several.build_index(small_demo / 'videos', tmp_path / 'gallery', prompts='c')
    paths = sorted(map(str, (small_demo / 'videos').glob('*.mp4')))
    assert report.added == report.clips == len(paths) and not report.failed
    texts = ['a red square moves to the left', 'two circles']
    alone = VideoSearcher(*files['c'])
    scores = alone.encode_text(texts) @ alone.encode_video(paths).T  # [2, V]
    for text, row in zip(texts, scores):
        for searcher in (several, alone):  # the prompts that the index was made with are found
            hits = searcher.search(text, index=tmp_path / 'gallery', k=4)
            np.testing.assert_allclose([hit.score for hit in hits], np.sort(row)[::-1][:4], atol=1e-5)
            for hit in hits:
                assert row[paths.index(hit.path)] == pytest.approx(hit.score, abs=1e-5)
    encoded = []
    with pytest.MonkeyPatch.context() as patch:  # texts of a list are encoded in one batch
        model = alone.prompt_set().model
        encode = model.encode_text
        patch.setattr(model, 'encode_text', lambda tokens: encoded.append(len(tokens)) or encode(tokens))
        lists = alone.search(tuple(texts), tmp_path / 'gallery', k=4)
    assert encoded == [2] and alone.search([], tmp_path / 'gallery') == []
    for hits, text in zip(lists, texts, strict=True):
        one = alone.search(text, tmp_path / 'gallery', k=4)
        assert [(hit.path, hit.start, hit.end) for hit in hits] == [(hit.path, hit.start, hit.end) for hit in one]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in one], atol=1e-6)
    best = alone.search(video=paths[5], index=tmp_path / 'gallery', k=1)[0]
    assert best.score == pytest.approx(1, abs=1e-5)
    frame = DecordReader(paths[5]).get_batch([0]).asnumpy()[0]
    hits = alone.search(image=frame, index=tmp_path / 'gallery', k=3)
    near = alone.encode_image(frame) @ alone.encode_video(paths).T
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(near[0])[::-1][:3], atol=1e-5)


def test_an_index_that_was_made_anew_is_opened_again(files, tmp_path):
    """Also where its catalogue counts as many changes as the one before did."""
    searcher, index = VideoSearcher(*files['vop'], num_workers=1), tmp_path / 'gallery'
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        encode_video(tmp_path / name / f'{name}.mp4', 20)
        searcher.build_index(tmp_path / name, index)
        assert [hit.path for hit in searcher.search('a cat', index=index)] == [str(tmp_path / name / f'{name}.mp4')]
        shutil.rmtree(index)


def test_words_that_the_vocabulary_lacks_are_warned_of(files, tmp_path):
    (tmp_path / 'videos').mkdir()
    encode_video(tmp_path / 'videos' / 'a.mp4', 20)
    searcher, index = VideoSearcher(*files['vop']), tmp_path / 'gallery'
    searcher.build_index(tmp_path / 'videos', index)
    message = "the model doesn't know: man, riding, bike"
    query = 'a Man riding a bike!'
    assert searcher.unknown_words(query) == ['man', 'riding', 'bike']
    for call in (lambda text: searcher.search(text, index=index),
                 lambda text: searcher.encode_text(['a circle', text, text]),
                 lambda text: searcher.rank_texts(tmp_path / 'videos' / 'a.mp4', [text, 'a circle'])):
        for text, expected in ((query, message), ('ein Hund bellt', "the model doesn't know: ein, hund, bellt")):
            with pytest.warns(UnknownWordsWarning) as said:
                assert len(call(text))
            assert [(str(one.message), one.filename) for one in said] == [(expected, __file__)]  # where it was called
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert len(call('a red circle'))
            assert len(call('?!'))


def test_a_tokenizer_that_names_no_unknown_words_goes_on_working(files):
    searcher = VideoSearcher(*files['vop'])
    prompts = searcher.prompt_set()
    expected, call = searcher.encode_text('a circle'), prompts.tokenizer
    prompts.tokenizer = lambda texts: call(texts)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        np.testing.assert_array_equal(searcher.encode_text('a circle'), expected)
        assert len(searcher.encode_text('a man')) == 1 and searcher.unknown_words('a man') == []


def test_queries_that_are_refused(files, tmp_path):
    (tmp_path / 'videos').mkdir()
    encode_video(tmp_path / 'videos' / 'a.mp4', 20)
    searcher, index = VideoSearcher(*files['vop']), tmp_path / 'gallery'
    searcher.build_index(tmp_path / 'videos', index)
    for query, message in ((' \n', 'the query is empty'), ('word ' * 10_000, '10000 words'), ('a' * 10**6, '1 words')):
        with pytest.raises(ValueError, match=message):
            searcher.search(query, index=index)
    with pytest.raises(ValueError, match='exactly one of a text, a video or an image'):
        searcher.search(index=index)
    with pytest.raises(ValueError, match='k must be at least 1'):
        searcher.search('a', index=index, k=0)
    with pytest.raises(IndexMismatchError, match='made with other settings: prompts VoP, fingerprint .*, not VoP.F.P'):
        VideoSearcher(*files['f_p']).search('a', index=index)
    with pytest.raises(IndexMismatchError, match='other settings: prompts'):
        VideoSearcher(*files['f_p']).build_index(tmp_path / 'videos', index)
    for key, value, says in (('interpolation', 'bilinear', 'bicubic, not bilinear'),
                             ('size', 40, r'\[40, 40\], not 40'), ('num_frames', 6, '12, not 6')):
        other = demo_config('vop/vop_demo.py')
        other.test_dataloader.dataset.pipeline[0][key] = value
        with pytest.raises(IndexMismatchError, match=f'made with other settings: {key} {says}'):
            VideoSearcher(other, files['vop'][1]).search('a', index=index)
    other = files['vop'][0].copy()
    weights = load_file(other.model.backbone.weights)
    weights['visual.proj'] *= 1.01
    save_file(weights, tmp_path / 'other.safetensors')
    other.model.backbone.weights = str(tmp_path / 'other.safetensors')
    with pytest.warns(UserWarning, match='no checkpoint was given'):
        stranger = VideoSearcher(other)
    with pytest.raises(IndexMismatchError, match='other settings: CLIP .*, fingerprint .*, not '):
        stranger.search('a', index=index)
    for query in (3, None, b'a', [3]):
        with pytest.raises(TypeError, match='a text must be a str, got'):
            searcher.encode_text([query])
    with pytest.raises(FileNotFoundError, match='no search index'):
        searcher.search('a', index=tmp_path / 'nothing')
    for path in broken_videos(tmp_path).values():
        with pytest.raises(VideoDecodeError, match=os.path.basename(path)):
            searcher.search(video=path, index=index)
        with pytest.raises(VideoDecodeError, match=os.path.basename(path)):
            searcher.search(image=path, index=index)
