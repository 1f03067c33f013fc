"""What a method finds."""
import numpy as np
import pytest

from vop_mm.visualization.rankings import choose_queries, load_rankings


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
    assert [rankings.top(i, 3) for i in range(3)] == [[1, 2, 0], [2, 1, 0], [2, 0, 1]]
    assert rankings.top(0, 1) == [1] and len(rankings.top(0, 9)) == 3


def test_queries_are_the_same_for_all_and_the_split_is_checked(tmp_path):
    a = load_rankings(dump(tmp_path / 'a.npz', np.eye(20)))
    b = load_rankings(dump(tmp_path / 'b.npz', np.eye(20), captions=['x'] * 20))
    assert choose_queries({'a': a, 'again': a}, 5, seed=1) == choose_queries({'a': a}, 5, seed=1)
    assert len(set(choose_queries({'a': a}, 99))) == 20
    with pytest.raises(ValueError, match='same split'):
        choose_queries({'a': a, 'b': b}, 5)
