"""VideoSearcher: indexes of prompt sets, and searches."""
import json
import os
import shutil
import warnings

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.checkpoints import demo_config
from tests.tools import run_tool
from tests.videos import broken_videos, encode_video
from vop_mm.apis import UnknownWordsWarning, VideoSearcher
from vop_mm.datasets.decoding import DecordReader
from vop_mm.datasets.errors import VideoDecodeError
from vop_mm.search import IndexMismatchError, SearchIndex


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
