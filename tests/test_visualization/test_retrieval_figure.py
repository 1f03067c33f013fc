"""The picture of what queries find."""
import json

import cv2
import numpy as np
import pytest

from tests.tools import run_tool
from tests.videos import encode_video
from vop_mm.visualization.retrieval_figure import choose_queries, load_rankings


def dump(path, similarity, captions=None):
    """Features whose products are the similarities [T, V], in the form that the metric writes."""
    texts, videos = similarity.shape
    np.savez(path, video_ids=np.array([f'v{i}' for i in range(videos)]), text_to_video=np.arange(texts),
             captions=np.array(captions or [f'caption {i}' for i in range(texts)]),
             text_features=similarity.astype(np.float32), video_features=np.eye(videos, dtype=np.float32))
    return path


def test_ranks_count_equal_ones_before_the_true_one(tmp_path):
    rankings = load_rankings(dump(tmp_path / 'a.npz', np.array([[.1, .9, .1], [.2, .5, .5], [0, 0, 1.]])))
    assert [rankings.rank(i) for i in range(3)] == [3, 2, 1]


def test_queries_are_the_same_for_all_and_the_split_is_checked(tmp_path):
    a = load_rankings(dump(tmp_path / 'a.npz', np.eye(20)))
    b = load_rankings(dump(tmp_path / 'b.npz', np.eye(20), captions=['x'] * 20))
    assert choose_queries({'a': a, 'again': a}, 5, seed=1) == choose_queries({'a': a}, 5, seed=1)
    assert len(set(choose_queries({'a': a}, 99))) == 20
    with pytest.raises(ValueError, match='same split'):
        choose_queries({'a': a, 'b': b}, 5)


@pytest.fixture(scope='module')
def split(tmp_path_factory):
    """Three videos of one colour each, and their annotation."""
    folder = tmp_path_factory.mktemp('split')
    (folder / 'videos').mkdir()
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    for i, colour in enumerate(colours):
        encode_video(folder / 'videos' / f'v{i}.mp4', [np.full((48, 64, 3), colour, np.uint8)] * 8)
    (folder / 'test.json').write_text(json.dumps(dict(metainfo={}, data_list=[
        dict(video_id=f'v{i}', video=f'v{i}.mp4', captions=[f'caption {i}']) for i in range(3)])))
    return folder


def test_right_ones_are_green_and_wrong_ones_red(tmp_path, split):
    right, wrong = np.eye(3), np.eye(3)[[1, 2, 0]]
    out = tmp_path / 'out.png'
    done = run_tool('tools/visualizations/vis_retrieval.py', 'configs/vop/vop_demo.py', out, '--num-queries', '3',
                    '--features', f'good={dump(tmp_path / "r.npz", right)}', f'bad={dump(tmp_path / "w.npz", wrong)}',
                    '--cfg-options', f'test_dataloader.dataset.data_root={split}')
    assert done.returncode == 0, done.stderr
    picture = cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)

    def frame(colour, columns):  # pixels of a frame's colour; film strips have other ones
        return (np.abs(picture[:, columns].astype(int) - colour).max(axis=-1) <= 3).sum()

    third = picture.shape[1] // 3
    green, red = (0x2c, 0xa0, 0x2c), (0xd6, 0x27, 0x28)
    good, bad = slice(0, third), slice(third, 2 * third)
    assert frame(green, good) > 500 and frame(red, good) == 0
    assert frame(red, bad) > 500 and frame(green, bad) == 0


def test_bad_input_gives_one_line(tmp_path):
    (tmp_path / 'x.npz').write_bytes(b'garbage')
    for path, says in ((tmp_path / 'no.npz', 'not found'), (tmp_path / 'x.npz', 'x.npz is not a file of')):
        done = run_tool('tools/visualizations/vis_retrieval.py', 'configs/vop/vop_demo.py', tmp_path / 'o.png',
                        '--features', f'a={path}')
        assert done.returncode == 1 and says in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'o.png').exists()
