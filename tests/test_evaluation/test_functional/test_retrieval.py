"""Ranks and metrics against published figures, plain loops, and cases known by hand."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_evaluation import brute_force
from vop_mm.evaluation.functional import (
    blocks,
    rank_metrics,
    retrieval,
    retrieval_metrics,
    retrieval_ranks,
    similarity_matrix,
)

DATA = Path(__file__).parents[2] / 'data'
TIES = ('pessimistic', 'optimistic', 'mean')
PROTOCOLS = ('video', 'caption')


def draw(seed, num_videos, most_texts, levels=None):
    """A matrix, with equal scores where there are only so many levels, and which video each text is of, shuffled."""
    rng = np.random.default_rng(seed)
    text_to_video = rng.permutation(np.repeat(np.arange(num_videos), rng.integers(1, most_texts + 1, num_videos)))
    shape = len(text_to_video), num_videos
    similarity = rng.standard_normal(shape) if levels is None else rng.integers(0, levels, shape) / 4
    return similarity.astype(np.float32), text_to_video


def equal(found, expected):
    return all(found[d].keys() == expected[d].keys() and found[d] == pytest.approx(expected[d], rel=1e-12)
               for d in ('t2v', 'v2t'))


# -- against others -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['square_200', 'multi_caption_80'])
@pytest.mark.parametrize('kind', [np.asarray, torch.from_numpy])
def test_figures_of_clip4clip_and_xpool(name, kind):
    with np.load(DATA / 'retrieval_metrics.npz', allow_pickle=False) as file:
        similarity = kind(file[name])
        text_to_video = kind(file[f'{name}_text_to_video']) if f'{name}_text_to_video' in file else None
    expected = json.loads((DATA / 'retrieval_metrics.json').read_text())[name]
    found = retrieval_metrics(similarity, text_to_video)
    for direction, values in expected.items():
        assert {key: found[direction][key] for key in values} == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('ties', TIES)
@pytest.mark.parametrize('levels', [None, 2, 7])
@pytest.mark.parametrize(('num_videos', 'most_texts'), [(1, 1), (1, 5), (2, 1), (7, 1), (60, 1), (13, 6), (61, 3)])
def test_equals_plain_loops(num_videos, most_texts, levels, ties, protocol):
    similarity, text_to_video = draw(num_videos + most_texts, num_videos, most_texts, levels)
    ranks = retrieval_ranks(similarity, text_to_video, ties, protocol)
    assert {d: list(r) for d, r in ranks.items()} == brute_force.ranks(similarity, text_to_video, ties, protocol)
    assert equal(retrieval_metrics(similarity, text_to_video, ties, protocol),
                 brute_force.metrics(similarity, text_to_video, ties, protocol))


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32', 'float64', 'int32', 'uint8', '>f4', '>f8', '>i2'])
def test_every_type(dtype, protocol):
    similarity, text_to_video = draw(5, 20, 3, levels=40)
    similarity = similarity * 4  # whole numbers below 40, which every type holds
    expected = brute_force.ranks(similarity, text_to_video, 'mean', protocol)
    kinds = [] if dtype == 'bfloat16' else [similarity.astype(dtype)]
    if not dtype.startswith('>'):
        kinds.append(torch.from_numpy(similarity).to(getattr(torch, dtype)))
    for matrix in kinds:
        ranks = retrieval_ranks(matrix, text_to_video, 'mean', protocol)
        assert {d: list(r) for d, r in ranks.items()} == expected


def test_the_smallest_difference_of_a_type_counts():
    for dtype in (np.float16, np.float32, np.float64):
        low = dtype(0.25)
        similarity = np.array([[low, np.nextafter(low, dtype(1))], [0, 1]], dtype)
        for matrix in (similarity, torch.from_numpy(similarity)):
            assert list(retrieval_ranks(matrix, ties='optimistic')['t2v']) == [2, 1]


def test_any_memory_layout(tmp_path):
    similarity, text_to_video = draw(1, 17, 3)
    expected = retrieval_metrics(similarity, text_to_video)
    np.save(tmp_path / 'a.npy', similarity)
    frozen = similarity.copy()
    frozen.flags.writeable = False
    wide = np.zeros((2 * len(similarity), 34), np.float32)
    wide[::2, ::2] = similarity
    for matrix in (np.load(tmp_path / 'a.npy', mmap_mode='r'), np.asfortranarray(similarity), frozen, wide[::2, ::2],
                   similarity[::-1].copy()[::-1], similarity.tolist(), torch.from_numpy(similarity.T.copy()).T,
                   torch.from_numpy(similarity).requires_grad_()):
        assert retrieval_metrics(matrix, text_to_video) == expected
    for indices in (text_to_video.tolist(), text_to_video.astype(np.uint8), torch.from_numpy(text_to_video).int()):
        assert retrieval_metrics(similarity, indices) == expected


# -- by hand --------------------------------------------------------------------------------------------------------
def test_ties_by_hand():
    similarity = np.array([[.5, .5, .5, .9], [.1, .7, .1, .1], [.2, .2, .2, .2], [0, 0, 0, 1]])
    found = {ties: retrieval_ranks(similarity, ties=ties)['t2v'].tolist() for ties in TIES}
    assert found == dict(pessimistic=[4, 1, 4, 1], optimistic=[2, 1, 1, 1], mean=[3, 1, 2.5, 1])


def test_a_constant_matrix_scores_nothing():
    constant = retrieval_metrics(np.zeros((100, 100)))
    for direction in ('t2v', 'v2t'):
        assert constant[direction] == dict(R1=0, R5=0, R10=0, R50=0, Rsum=0, MdR=100, MnR=100)


def test_two_readings_of_v2t_by_hand():
    # video 0 has texts 0 and 1, video 1 has 2, 3 and 4
    text_to_video = [0, 0, 1, 1, 1]
    similarity = np.array([[.1, .3], [.6, .2], [.8, .4], [.7, .1], [.9, .5]])
    # video 0: its best is .6; by groups one group (.9) is better, by captions three are
    # video 1: its best is .5; nothing is better
    assert retrieval_ranks(similarity, text_to_video)['v2t'].tolist() == [2, 1]
    assert retrieval_ranks(similarity, text_to_video, v2t_protocol='caption')['v2t'].tolist() == [4, 1]


def test_a_videos_own_equal_texts_are_no_competitors():
    similarity = np.array([[.5, .1], [.5, .1], [.2, .3]])
    for protocol in PROTOCOLS:
        assert retrieval_ranks(similarity, [0, 0, 1], 'pessimistic', protocol)['v2t'].tolist() == [1, 1]


def test_metrics_of_ranks_by_hand():
    assert rank_metrics(np.array([1, 1, 3, 8, 60.])) == dict(R1=40, R5=60, R10=80, R50=80, Rsum=180, MdR=3, MnR=14.6)
    assert rank_metrics(np.array([1.5, 2])) == dict(R1=0, R5=100, R10=100, R50=100, Rsum=200, MdR=1.75, MnR=1.75)
    assert all(type(value) is float for value in rank_metrics(np.array([1, 2])).values())  # as json takes them
    with pytest.raises(ValueError, match='at least one'):
        rank_metrics(np.array([]))


# -- what must not matter -------------------------------------------------------------------------------------------
@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('ties', TIES)
def test_order_does_not_matter(ties, protocol):
    similarity, text_to_video = draw(2, 30, 5, levels=9)
    rng = np.random.default_rng(0)
    texts, videos = rng.permutation(len(similarity)), rng.permutation(30)
    shuffled = similarity[texts][:, videos], np.argsort(videos)[text_to_video[texts]]
    assert retrieval_metrics(*shuffled, ties, protocol) == retrieval_metrics(similarity, text_to_video, ties, protocol)
    ranks, others = (retrieval_ranks(*x, ties, protocol) for x in ((similarity, text_to_video), shuffled))
    assert (others['t2v'] == ranks['t2v'][texts]).all() and (others['v2t'] == ranks['v2t'][videos]).all()


@pytest.mark.parametrize('block', [1, 19, 20, 64, 300])
@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_blocks_do_not_matter(block, protocol, monkeypatch):
    similarity, text_to_video = draw(3, 20, 7, levels=9)
    for indices in (text_to_video, np.sort(text_to_video)):
        expected = brute_force.ranks(similarity, indices, 'mean', protocol)
        with monkeypatch.context() as patch:
            patch.setattr(blocks, '_BLOCK', block)
            for matrix in (similarity, torch.from_numpy(similarity)):
                ranks = retrieval_ranks(matrix, indices, 'mean', protocol)
                assert {d: list(r) for d, r in ranks.items()} == expected


def test_the_input_is_left_alone():
    similarity, text_to_video = draw(4, 9, 3)
    before = similarity.copy()
    for matrix in (similarity, torch.from_numpy(similarity)):
        retrieval_metrics(matrix, text_to_video)
    assert (similarity == before).all()


def test_similarity_is_rounded_once(monkeypatch):
    rng = np.random.default_rng(0)
    texts, videos = (rng.standard_normal((n, 512)).astype(np.float32) for n in (37, 23))
    texts[30] = texts[3]
    exact = [[sum(float(a) * float(b) for a, b in zip(t, v, strict=True)) for v in videos[:4]] for t in texts[:4]]
    found = similarity_matrix(texts, videos)
    assert found.dtype == torch.float32 and (found[:4, :4].numpy() == np.array(exact, np.float32)).all()
    assert torch.equal(found[30], found[3])  # the same caption twice is a tie, wherever it stands
    monkeypatch.setattr(blocks, '_BLOCK', 50)
    assert torch.equal(similarity_matrix(torch.from_numpy(texts), torch.from_numpy(videos)), found)
    with pytest.raises(ValueError, match=r'got \(37, 512\) and \(23, 511\)'):
        similarity_matrix(texts, videos[:, 1:])


# -- bad input ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('place', [(0, 0), (5, 2), (6, 7)])
@pytest.mark.parametrize('kind', [np.asarray, torch.from_numpy])
def test_not_finite_is_named(bad, place, kind, monkeypatch):
    similarity, _ = draw(0, 8, 1)
    similarity[place] = bad
    says = f'not finite at text {place[0]}, video {place[1]}: {bad}'
    shuffled = np.array([3, 0, 1, 7, 2, 4, 5, 6])
    for block in (2**22, 24):
        monkeypatch.setattr(blocks, '_BLOCK', block)
        for indices in (None, shuffled):
            with pytest.raises(ValueError, match=says):
                retrieval.text_to_video_ranks(kind(similarity), indices)
            for protocol in PROTOCOLS:
                with pytest.raises(ValueError, match=says):
                    retrieval.video_to_text_ranks(kind(similarity), indices, protocol=protocol)


def test_large_but_finite_is_fine():
    similarity = np.full((3, 3), 3e38, np.float32) * (np.eye(3, dtype=np.float32) * .5 + .5)
    assert retrieval_metrics(similarity)['t2v']['R1'] == 100


@pytest.mark.parametrize(('similarity', 'text_to_video', 'says'), [
    (np.zeros(3), None, r'\[num_texts, num_videos\], both at least 1, got the shape \(3,\)'),
    (np.zeros((2, 2, 2)), None, r'got the shape \(2, 2, 2\)'),
    (np.zeros((0, 0)), None, r'got the shape \(0, 0\)'),
    (np.zeros((0, 3)), [], r'got the shape \(0, 3\)'),
    (np.zeros((3, 2)), None, '3 texts and 2 videos: text_to_video must say'),
    (np.zeros((2, 2), complex), None, 'got complex128'),
    (np.zeros((2, 2), bool), None, 'got bool'),
    (np.zeros((2, 2), object), None, 'got object'),
    (np.array([['a', 'b'], ['c', 'd']]), None, 'got <U1'),
    (torch.zeros(2, 2, dtype=torch.bool), None, 'got torch.bool'),
    (np.zeros((3, 2)), [0, 1], r'text_to_video must be 3 integers, got int64 of the shape \(2,\)'),
    (np.zeros((3, 2)), [[0, 1, 1]], r'must be 3 integers, got int64 of the shape \(1, 3\)'),
    (np.zeros((3, 2)), [0., 1., 1.], 'must be 3 integers, got float64'),
    (np.zeros((3, 2)), [True, False, True], 'must be 3 integers, got bool'),
    (np.zeros((3, 2)), [0, 1, 2], r'text_to_video\[2\] is 2, and there are 2 videos'),
    (np.zeros((3, 2)), [0, -1, 1], r'text_to_video\[1\] is -1, and there are 2 videos'),
    (np.zeros((3, 2)), [1, 1, 1], '1 of 2 videos have no text: 0'),
    (np.zeros((3, 9)), [1, 2, 3], r'6 of 9 videos have no text: 0, 4, 5, \.\.\.'),
])
def test_bad_input(similarity, text_to_video, says):
    with pytest.raises(ValueError, match=says):
        retrieval_metrics(similarity, text_to_video)


@pytest.mark.parametrize(('options', 'says'), [
    (dict(ties='worst'), "ties must be one of 'pessimistic', 'optimistic', 'mean', got 'worst'"),
    (dict(v2t_protocol='text'), "v2t_protocol must be one of 'video', 'caption', got 'text'"),
])
def test_bad_options(options, says):
    with pytest.raises(ValueError, match=says):
        retrieval_metrics(np.eye(2), **options)
