"""Search with heads of strangers: found by a vector, put in order by what the head says."""
import contextlib
import shutil

import numpy as np
import pytest
import torch

from tests.checkpoints import demo_config, write_checkpoint
from tests.heads import one_by_one
from tests.tools import run_tool
from tests.videos import encode_video
from vop_mm.apis import VideoSearcher
from vop_mm.deployment.onnx_export import export_onnx
from vop_mm.search import SearchIndex, merge_features
from vop_mm.search.page.collection import Collection

TEXTS = ['a red square moves to left', 'a circle moves right', 'a blue triangle moves up']


@pytest.fixture(scope='module')
def videos(small_demo, tmp_path_factory):
    """Ten clips, one of them with fewer frames than the model takes."""
    folder = tmp_path_factory.mktemp('videos')
    for path in sorted((small_demo / 'videos').glob('*.mp4'))[:9]:
        shutil.copy(path, folder)
    encode_video(folder / 'short.mp4', 5)
    return folder


@pytest.fixture(scope='module', params=['MirrorSimilarity', 'FramesByText', 'WordsByFrames'])
def world(request, videos, tmp_path_factory):
    """A searcher with such a head, an index, and what the head says of each text with each video, [T, V]."""
    folder = tmp_path_factory.mktemp('world')
    videos = shutil.copytree(videos, folder / 'videos')
    cfg = demo_config('vop/vop_demo.py', **{'model.head.type': request.param,
                                            'model.data_preprocessor.short_videos': 'mask'})
    checkpoint = write_checkpoint(folder / 'model.pth', cfg, 3)
    searcher = VideoSearcher(cfg, checkpoint, num_workers=1)
    assert searcher.build_index(videos, folder / 'gallery').encoded == 10
    shutil.copy(videos / 'short.mp4', videos / 'again.mp4')  # content that is known is not encoded again
    report = searcher.build_index(videos, folder / 'gallery')
    assert (report.clips, report.encoded) == (11, 0)
    prompt_set, paths = searcher.prompt_set(), sorted(map(str, videos.glob('*.mp4')))
    model, loaded = prompt_set.model, [prompt_set.loader.load(path) for path in paths]
    real = [n for _, counts in loaded for n in counts]
    assert min(real) == 5 and max(real) == 12
    mask = torch.arange(12) < torch.tensor(real)[:, None]
    frames = model.data_preprocessor.normalize(torch.cat([frames for frames, _ in loaded]))
    with torch.no_grad():
        scores = one_by_one(model.head, model.keep_text(prompt_set.tokenizer(TEXTS)), model.keep_video(frames, mask),
                            mask).numpy()
    return searcher, folder / 'gallery', paths, scores


def assert_in_order(hits, row, paths):
    order = np.sort(row)[::-1]
    np.testing.assert_allclose([hit.score for hit in hits], order[:len(hits)], rtol=0, atol=1e-5)
    for hit in hits:
        assert row[paths.index(hit.path)] == pytest.approx(hit.score, abs=1e-5)


def test_full_re_ranking_is_the_order_of_the_head(world):
    searcher, index, paths, scores = world
    collection = Collection('page', index, searcher, 'default')
    for text, row in zip(TEXTS, scores):
        assert_in_order(searcher.search(text, index, k=11), row, paths)
        assert_in_order(searcher.search(text, index, k=2), row, paths)
        assert_in_order(VideoSearcher.from_index(index).search(text, index, k=11), row, paths)
        assert_in_order(collection.search(text, k=11), row, paths)
    collection.close()


def test_a_list_of_queries_finds_what_each_finds_alone(world):
    searcher, index, paths, scores = world
    together = searcher.search(TEXTS, index, k=4)
    assert len(together) == len(TEXTS)
    for text, hits, row in zip(TEXTS, together, scores):
        assert_in_order(hits, row, paths)
        alone = searcher.search(text, index, k=4)
        assert [hit.path for hit in hits] == [hit.path for hit in alone]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in alone], atol=1e-5)


def test_the_nearest_by_vector_alone_are_re_ranked(world):
    searcher, index, paths, scores = world
    near = (searcher.encode_text(TEXTS) @ searcher.encode_video(paths).T).argsort(1)[:, ::-1]
    for text, row, order in zip(TEXTS, scores, near):
        hits = searcher.search(text, index, k=3, rerank=3)
        assert_in_order(hits, row[order[:3]], [paths[i] for i in order[:3]])


def test_texts_are_ranked_by_the_head(world):
    searcher, index, paths, scores = world
    collection = Collection('page', index, searcher, 'default')
    for video, path in enumerate(paths):
        for ranked in (searcher.rank_texts(path, TEXTS), collection.rank_texts(collection.encode_video(path), TEXTS)):
            np.testing.assert_allclose([r.score for r in ranked], np.sort(scores[:, video])[::-1], atol=1e-5)
            assert [r.text for r in ranked] == [TEXTS[i] for i in np.argsort(-scores[:, video], kind='stable')]
    assert collection.nearest(collection.encode_video(paths[4]), 1)[0].path == paths[4]  # a video, by its vector
    collection.close()


def test_features_in_parts_make_the_same_index(world, tmp_path):
    searcher, index, paths, scores = world
    searcher.extract_features(index.with_name('videos'), tmp_path / 'parts', 2)
    merge_features(tmp_path / 'parts', tmp_path / 'index')
    assert_in_order(searcher.search(TEXTS[0], tmp_path / 'index', k=11), scores[0], paths)


def test_what_re_ranking_needs_is_kept_where_it_is_needed_alone(world, tmp_path):
    searcher, index, _, _ = world
    videos = index.with_name('videos')
    plain = VideoSearcher(demo_config('vop/vop_demo.py'), write_checkpoint(
        tmp_path / 'plain.pth', demo_config('vop/vop_demo.py'), 3), num_workers=1)
    plain.build_index(videos, tmp_path / 'plain')
    kept = {}
    for name, folder in (('plain', tmp_path / 'plain'), ('head', index)):
        with contextlib.closing(SearchIndex(folder)) as search_index:
            kept[name] = search_index.catalogue.clips_of_file('again.mp4')[1][0]
            assert search_index.settings.get('kept', 0) == len(kept[name]) - search_index.settings['dim']
    of_head = 64 if type(searcher.prompt_set().model.head).__name__ == 'MirrorSimilarity' else 12 * 64
    assert len(kept['plain']) == 64 and len(kept['head']) == 64 + of_head + 12
    np.testing.assert_allclose(kept['head'], searcher.keep_video(videos / 'again.mp4')[0], atol=1e-5)
    assert kept['head'][-12:].tolist() == [1] * 5 + [0] * 7


def test_the_tool_takes_how_many_are_re_ranked(videos, tmp_path):
    cfg = demo_config('baselines/zero_shot_demo.py')
    VideoSearcher(cfg, num_workers=1).build_index(videos, tmp_path / 'gallery')
    done = run_tool('tools/search.py', tmp_path / 'gallery', 'a circle', '--rerank', '7')
    assert done.returncode == 0, done.stderr


def test_an_onnx_file_refuses_a_head_by_name(world, tmp_path):
    model = world[0].prompt_set().model
    with pytest.raises(ValueError, match=f'the head {type(model.head).__name__} scores .* an ONNX file holds vectors'):
        export_onnx(model, tmp_path / 'out')
    assert not list(tmp_path.iterdir())
