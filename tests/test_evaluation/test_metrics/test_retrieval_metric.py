"""The metric of retrieval: its values and options, what it dumps and logs."""
import json
import logging

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from tests.samples import DIM, META, by_hand, change, evaluate, flat, make_samples
from tests.test_evaluation import brute_force
from vop_mm.evaluation import RetrievalMetric
from vop_mm.evaluation.functional import retrieval_metrics
from vop_mm.registry import METRICS


# -- values ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('protocol', ['video', 'caption'])
@pytest.mark.parametrize('ties', ['pessimistic', 'optimistic', 'mean'])
@pytest.mark.parametrize('levels', [None, 2])
def test_equals_the_function_and_plain_loops(levels, ties, protocol):
    samples = make_samples(levels=levels)
    similarity, text_to_video = by_hand(samples)
    found = evaluate(samples, ties=ties, v2t_protocol=protocol)
    assert found == flat(retrieval_metrics(similarity, text_to_video, ties, protocol))
    assert found == pytest.approx(flat(brute_force.metrics(similarity, text_to_video, ties, protocol)), rel=1e-12)


def test_keys_and_what_they_are_made_of():
    found = evaluate(make_samples())
    assert list(found) == [f'{d}/{key}' for d in ('t2v', 'v2t')
                           for key in ('R1', 'R5', 'R10', 'R50', 'Rsum', 'MdR', 'MnR')]
    assert json.loads(json.dumps(found)) == found  # plain floats
    assert set(evaluate(make_samples(), prefix='dev')) == {f'dev/{key}' for key in found}


def test_half_precision_features_are_taken_as_they_are():
    samples = make_samples()
    for sample in samples:
        sample.set_data(dict(video_feature=sample.video_feature.bfloat16(), text_features=sample.text_features.half()))
    assert evaluate(samples) == flat(retrieval_metrics(*by_hand(samples)))


# -- what is left out, dumped, said ---------------------------------------------------------------------------------
@pytest.fixture
def lines():
    """What MMEngine's current logger says meanwhile, as (level, text)."""
    logger, said = MMLogger.get_current_instance(), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append((record.levelno, record.getMessage()))
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_what_could_not_be_read_is_left_out_and_named(lines):
    samples = make_samples()
    expected = evaluate(samples[2:])
    bad = [change(sample, unreadable=[('x.mp4', 'no video stream')]) for sample in samples[:2]]
    bad[0].set_data(dict(video_feature=torch.full((DIM,), torch.nan)))  # of black frames: never looked at
    metric = RetrievalMetric()
    assert evaluate([*samples[2:], *bad], metric=metric, meta=META) == expected
    names = sorted(sample.video_id for sample in bad)
    assert lines[-1] == (
        logging.WARNING, f'2 of 23 videos are left out of these figures, with their captions: {", ".join(names)}')
    assert metric.summary == dict(META, num_texts=sum(len(s.captions) for s in samples[2:]), num_videos=21,
                                  ties='pessimistic', v2t_protocol='video', left_out=names)


def test_the_log_says_what_was_measured(lines):
    samples = make_samples(3)
    texts = sum(len(s.captions) for s in samples)
    evaluate(samples, meta=META, ties='mean')
    evaluate(samples, v2t_protocol='caption')
    assert [text for _, text in lines] == [
        f"Retrieval on MSVD test, multi-caption, {texts} captions, gallery of 3 videos: ties mean, v2t by the "
        "maximum over a video's captions",
        f'Retrieval on unnamed dataset, {texts} captions, gallery of 3 videos: ties pessimistic, v2t by its '
        'best caption']


def unit_samples(*args, **options):
    samples = make_samples(*args, **options)
    for sample in samples:
        sample.set_data({key: torch.nn.functional.normalize(value, dim=-1) for key, value in sample.items()})
    return samples


def test_post_processing_and_intervals_have_keys_of_their_own(tmp_path):
    training, samples = unit_samples(30, seed=7), unit_samples(30, seed=8)
    plain = evaluate(samples)
    evaluate(training, dump=str(tmp_path / 'bank.npz'))
    found = evaluate(samples, postprocess=['dsl', 'qbnorm'], query_bank=str(tmp_path / 'bank.npz'), bootstrap=50)
    assert {key: found[key] for key in plain} == plain
    names = {key.partition('/')[2] for key in plain}
    rows = {f'{direction}{name}' for direction in ('t2v', 'v2t') for name in ('', '_dsl', '_qbnorm')}
    assert {key.partition('/')[0] for key in found} == rows
    assert {key.partition('/')[2] for key in found} == names | {f'{n}_{e}' for n in names for e in ('low', 'high')}
    similarity, text_to_video = by_hand(samples)
    expected = brute_force.metrics(brute_force.dual_softmax(similarity, 't2v'), text_to_video)['t2v']
    assert {name: found[f't2v_dsl/{name}'] for name in expected} == pytest.approx(expected)
    for options, says in ((dict(postprocess=['qbnorm']), 'needs a query bank'), (dict(postprocess=['dls']), "'dls'"),
                          (dict(query_bank='no.npz'), 'not requested'), (dict(bootstrap=-1), 'bootstrap')):
        with pytest.raises(ValueError, match=says):
            RetrievalMetric(**options)
    with pytest.raises(FileNotFoundError, match='no.npz'):
        RetrievalMetric(postprocess=['qbnorm'], query_bank='no.npz')


def test_dump_can_be_scored_again(tmp_path):
    samples = make_samples()
    path = tmp_path / 'new' / 'features.npz'
    found = evaluate(samples, dump=str(path))
    with np.load(path, allow_pickle=False) as data:
        assert flat(retrieval_metrics(data['text_features'] @ data['video_features'].T, data['text_to_video'])) == found
        expected = sorted(samples, key=lambda sample: sample.video_id)
        assert data['video_ids'].tolist() == [sample.video_id for sample in expected]
        assert data['captions'].tolist() == [caption for sample in expected for caption in sample.captions]
    assert [p.name for p in path.parent.iterdir()] == ['features.npz']
    evaluate([change(sample, captions=None) for sample in samples], dump=path)
    with np.load(path) as data:
        assert set(data) == {'video_ids', 'text_to_video', 'text_features', 'video_features'}


@pytest.mark.parametrize(('split', 'good'), [('train', True), ('train_9k', True), ('dev', False), ('test', False)])
def test_a_query_bank_is_of_the_training_split(tmp_path, split, good):
    samples = unit_samples()
    evaluate(samples, meta=dict(dataset='made', split=split), dump=str(tmp_path / 'bank.npz'))
    with np.load(tmp_path / 'bank.npz', allow_pickle=False) as data:
        assert (str(data['dataset']), str(data['split'])) == ('made', split) and 'protocol' not in data
    options = dict(postprocess=['qbnorm'], query_bank=str(tmp_path / 'bank.npz'))
    if good:
        assert 't2v_qbnorm/R1' in evaluate(samples, **options)
    else:
        with pytest.raises(ValueError, match=f'bank.npz is of the split {split}: queries must come from'):
            evaluate(samples, **options)


@pytest.mark.parametrize('options', [dict(ties='none'), dict(v2t_protocol='group')])
def test_bad_options_before_anything_runs(options):
    with pytest.raises(ValueError, match='must be one of'):
        METRICS.build(dict(type='RetrievalMetric', **options))
