"""Post-processing beside plain loops, in each direction."""
import numpy as np
import pytest
import torch

from tests.test_evaluation import brute_force
from vop_mm.evaluation.functional import (
    FeatureRows,
    blocks,
    dual_softmax,
    evaluate_retrieval,
    load_query_bank,
    qb_norm,
    rank_metrics,
    similarity_matrix,
    sinkhorn,
    text_to_video_ranks,
    video_to_text_ranks,
)


def features(count, seed, hub=0.):
    """Unit vectors; with a hub, all lean towards one direction, the first more than the others."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 16)) + hub
    x[0] += 2 * hub
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[False, True], ids=['1:1', 'captions'])
def split(request):
    """Cosines [T, V] and which text belongs to which video."""
    videos = features(12, 0, hub=0.4)
    text_to_video = np.random.default_rng(1).permutation(np.arange(30) % 12) if request.param else np.arange(12)
    texts = videos[text_to_video] + 1.6 * features(len(text_to_video), 2, hub=0.2)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return similarity_matrix(texts, videos), text_to_video


def whole(rows):
    """All elements, for a comparison."""
    return rows.block(slice(0, rows.shape[0])).numpy()


def check(rows, expected, text_to_video, direction):
    """The same ranks as the reference, in the direction that the rows are for."""
    ranks = dict(t2v=text_to_video_ranks, v2t=video_to_text_ranks)[direction](rows, text_to_video)
    assert list(ranks) == brute_force.ranks(expected, text_to_video)[direction]
    return ranks


def reordered(ranks, similarity, text_to_video, direction):
    plain = dict(t2v=text_to_video_ranks, v2t=video_to_text_ranks)[direction](similarity, text_to_video)
    return list(ranks) != list(plain)


@pytest.mark.parametrize('direction', ['t2v', 'v2t'])
def test_dual_softmax(split, direction):
    similarity, text_to_video = split
    rows, expected = dual_softmax(similarity, direction), brute_force.dual_softmax(similarity, direction)
    assert whole(rows) == pytest.approx(np.array(expected), rel=1e-5)
    ranks = check(rows, expected, text_to_video, direction)
    assert reordered(ranks, similarity, text_to_video, direction)  # v2t as well: the prior is over the right axis
    # over the wrong axis a query's prior is one number for all that it looks at
    other = dict(t2v='v2t', v2t='t2v')[direction]
    assert whole(rows) != pytest.approx(whole(dual_softmax(similarity, other)))


@pytest.mark.parametrize('direction', ['t2v', 'v2t'])
def test_sinkhorn(split, direction):
    similarity, text_to_video = split
    plan = brute_force.sinkhorn(similarity, end='columns' if direction == 't2v' else 'rows')
    rows = sinkhorn(similarity, direction)
    # the same but for what is constant along what a query looks at
    difference = whole(rows) - np.log(np.array(plan))
    assert np.ptp(difference, axis=1 if direction == 't2v' else 0).max() < 1e-4
    assert reordered(check(rows, plan, text_to_video, direction), similarity, text_to_video, direction)


@pytest.mark.parametrize('direction', ['t2v', 'v2t'])
def test_qb_norm(split, direction):
    similarity, text_to_video = split
    queries = similarity if direction == 't2v' else similarity.T
    bank = queries[:5] + 0.1 * torch.from_numpy(np.random.default_rng(3).standard_normal((5, queries.shape[1])))
    bank = bank.float()
    expected = np.array(brute_force.qb_norm(queries, bank))
    rows = qb_norm(similarity, bank, direction)
    assert whole(rows) == pytest.approx(expected if direction == 't2v' else expected.T, abs=1e-5)
    ranks = check(rows, expected if direction == 't2v' else expected.T, text_to_video, direction)
    assert reordered(ranks, similarity, text_to_video, direction)
    # some queries are normalized, others aren't
    same = (expected == queries.double().numpy()).all(1)
    assert 0 < same.sum() < len(same)


@pytest.mark.parametrize('name', ['dsl', 'sinkhorn', 'qbnorm'])
def test_blocks_do_not_matter(split, name, monkeypatch):
    similarity, text_to_video = split
    texts, videos = features(9, 5), features(7, 6)

    def rows():
        bank = dict(t2v=similarity_matrix(texts, np.eye(16, dtype=np.float32)[:12]),
                    v2t=similarity_matrix(videos, features(len(similarity), 8)))
        return list(evaluate_retrieval(similarity, text_to_video, postprocess=[name],
                                       query_bank=bank if name == 'qbnorm' else None))

    expected = rows()
    assert [row for row, _ in expected] == ['t2v', 'v2t', f't2v_{name}', f'v2t_{name}']
    for size in (1, 25, 60):
        monkeypatch.setattr(blocks, '_BLOCK', size)
        assert rows() == expected


def test_equal_captions_stay_equal():
    """A caption twice: its scores are ties before and behind post-processing, and rank pessimistically."""
    similarity = similarity_matrix(features(6, 0)[[0, 1, 2, 3, 4, 4]], features(6, 1))
    for change in (dual_softmax, sinkhorn):
        values = whole(change(similarity, 'v2t'))
        assert (values[4] == values[5]).all()
        ranks = video_to_text_ranks(change(similarity, 'v2t'), None)
        assert ranks[4] > 1 or ranks[5] > 1


def test_the_bank_of_a_file(tmp_path):
    texts, videos = features(8, 0), features(5, 1)
    np.savez(tmp_path / 'bank.npz', text_features=features(20, 2), video_features=features(9, 3))
    bank = load_query_bank(tmp_path / 'bank.npz', texts, videos)
    assert isinstance(bank['t2v'], FeatureRows) and bank['t2v'].shape == (20, 5) and bank['v2t'].shape == (9, 8)
    assert torch.equal(bank['v2t'].block(slice(0, 9)), similarity_matrix(features(9, 3), texts))
    np.savez(tmp_path / 'other.npz', text_features=np.zeros((2, 3)), video_features=np.zeros((2, 3)))
    with pytest.raises(ValueError, match='other.npz does not fit'):
        load_query_bank(tmp_path / 'other.npz', texts, videos)
    np.savez(tmp_path / 'lacks.npz', text_features=texts)
    (tmp_path / 'garbage.npz').write_bytes(b'x')
    for name in ('lacks', 'garbage'):
        with pytest.raises(ValueError, match=f'{name}.npz was not written by'):
            load_query_bank(tmp_path / f'{name}.npz', texts, videos)


def test_bad_input():
    similarity = similarity_matrix(features(4, 0), features(4, 1))
    for change in (dual_softmax, sinkhorn):
        with pytest.raises(ValueError, match="'t2v', 'v2t', got 'both'"):
            change(similarity, 'both')
    with pytest.raises(ValueError, match=r'must be \[num_queries, 4\], got \(2, 3\)'):
        qb_norm(similarity, np.zeros((2, 3), np.float32), 't2v')


def test_only_cosines(split):
    similarity, text_to_video = split
    for name in ('dsl', 'sinkhorn', 'qbnorm'):
        rows = evaluate_retrieval(100 * similarity, text_to_video, postprocess=[name],
                                  query_bank=dict(t2v=similarity) if name == 'qbnorm' else None)
        with pytest.raises(ValueError, match='are not cosines, as .* divide them by the logit scale'):
            next(rows)
    list(evaluate_retrieval(similarity * 1.001 / similarity.abs().max(), text_to_video, postprocess=['dsl']))
    list(evaluate_retrieval(100 * similarity, text_to_video))  # ranks alone are the same at any scale


def test_rows_are_the_metrics_of_their_ranks(split):
    similarity, text_to_video = split
    rows = dict(evaluate_retrieval(similarity, text_to_video, postprocess=['dsl']))
    assert rows['v2t_dsl'] == rank_metrics(video_to_text_ranks(dual_softmax(similarity, 'v2t'), text_to_video))
    assert rows['t2v'] == rank_metrics(text_to_video_ranks(similarity, text_to_video))
