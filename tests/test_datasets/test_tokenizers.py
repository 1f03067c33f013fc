"""Tokenizers: known values, truncation that keeps end of text, the vocabulary file."""
from pathlib import Path

import open_clip
import pytest
import torch

from vop_mm.registry import TOKENIZERS

CAPTIONS = ['a squid is talking', "a man's car, painted red & blue!", 'ein Fußball 123', '', 'A Cat  SITS']


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / 'vocab.txt'
    path.write_text('a\nblue\ncircle\nred\n')
    return path


def build(**cfg):
    return TOKENIZERS.build(cfg)


@pytest.mark.parametrize('length', [77, 69, 6])
def test_clip_agrees_with_open_clip(length):
    captions = [*CAPTIONS, 'many words ' * 60]
    expected = open_clip.get_tokenizer('ViT-B-32')(captions, context_length=length)
    assert torch.equal(build(type='CLIPTokenizer', context_length=length)(captions), expected)


def test_clip_known_ids():
    tokenizer = build(type='CLIPTokenizer', context_length=6)
    assert tokenizer(['a squid is talking', 'a squid']).tolist() == [
        [49406, 320, 22553, 533, 2578, 49407], [49406, 320, 22553, 49407, 0, 0]]
    assert (tokenizer.sot_id, tokenizer.eot_id, tokenizer.vocab_size) == (49406, 49407, 49408)


def test_clip_truncation_keeps_end_of_text():
    tokens = build(type='CLIPTokenizer')(['dog ' * 200])
    assert tokens.shape == (1, 77) and tokens.dtype == torch.int64
    assert tokens[0, 0] == 49406 and tokens[0, -1] == 49407 and len(set(tokens[0, 1:-1].tolist())) == 1


def test_words(vocab):
    tokenizer = build(type='WordTokenizer', vocab=str(vocab), context_length=7)
    # 0 padding, 1 unknown, 2 start, 3.. words in the file's order, then end of text
    assert tokenizer(['a red circle', 'A  Blue, zebra!', '']).tolist() == [
        [2, 3, 6, 5, 7, 0, 0], [2, 3, 4, 1, 7, 0, 0], [2, 7, 0, 0, 0, 0, 0]]
    assert (tokenizer.sot_id, tokenizer.eot_id, tokenizer.vocab_size) == (2, 7, 8)


def test_words_truncation_keeps_end_of_text(vocab):
    tokenizer = build(type='WordTokenizer', vocab=vocab, context_length=5)
    assert tokenizer(['red circle', 'red blue circle', 'red blue circle a']).tolist() == [
        [2, 6, 5, 7, 0], [2, 6, 4, 5, 7], [2, 6, 4, 5, 7]]


def test_end_of_text_is_largest(vocab):
    for tokenizer in (build(type='WordTokenizer', vocab=vocab), build(type='CLIPTokenizer')):
        assert tokenizer.eot_id == tokenizer.vocab_size - 1
        tokens = tokenizer(['a red circle', 'blue'])
        assert (tokens.amax(dim=1) == tokenizer.eot_id).all()
        assert ((tokens == tokenizer.eot_id).sum(dim=1) == 1).all()


def test_no_texts(vocab):
    assert build(type='WordTokenizer', vocab=vocab, context_length=9)([]).shape == (0, 9)


@pytest.mark.parametrize(('content', 'message'), [
    ('', 'no words'), ('a\nb\na\n', "'a' stands there twice"), ('a\ntwo words\n', 'line 2'), ('a\n\nb\n', 'line 2'),
    ('Red\n', 'line 1')])
def test_bad_vocabulary(tmp_path, content, message):
    path = tmp_path / 'vocab.txt'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        build(type='WordTokenizer', vocab=path)


def test_missing_vocabulary(tmp_path):
    with pytest.raises(FileNotFoundError, match='vocabulary not found'):
        build(type='WordTokenizer', vocab=tmp_path / 'none.txt')


@pytest.mark.parametrize('kind', ['CLIPTokenizer', 'WordTokenizer'])
def test_too_short_context(vocab, kind):
    extra = dict(vocab=vocab) if kind == 'WordTokenizer' else {}
    with pytest.raises(ValueError, match='at least 3'):
        build(type=kind, context_length=2, **extra)


def test_vocabulary_of_the_demo_has_every_word_of_its_captions():
    from demo.shapes import make_split, paraphrases
    tokenizer = build(type='WordTokenizer', vocab=Path(__file__).parents[2] / 'demo/mini_clip/vocab.txt')
    captions = [text for scene, _ in make_split((0, 0, 0, 1), 200, unique=False) for text in paraphrases(scene)]
    assert not (tokenizer(captions) == tokenizer.unk_id).any()


@pytest.mark.parametrize('text, unknown', [
    ('a red circle', []),
    ('A man, riding a RED bike; a Man!', ['man', 'riding', 'bike']),
    ("a man's car", ['man', 's', 'car']),
    ('?! ... -- () “”', []),
    ('', []),
    ('ein roter Fußball', ['ein', 'roter', 'fußball']),
    ('красный circle', ['красный']),
    ('एक कुत्ता दौड़', ['एक', 'कुत्ता', 'दौड़']),  # with their vowel signs, whole
    ('犬が走る', ['犬が走る']),
    ('a re\u0301d circle', ['re\u0301d']),
    ('\u0301' * 1900, []),
    ('a 👩🏽\u200d🍳 runs, 🐕', ['👩🏽\u200d🍳', 'runs', '🐕']),
    ('a\x00red\udcffcircle\x1b[31m zebra\n', ['31m', 'zebra']),
    (' '.join(f'word{i}' for i in range(300)), [f'word{i}' for i in range(300)]),
])
def test_words_that_the_vocabulary_lacks_are_named(vocab, text, unknown):
    tokenizer = build(type='WordTokenizer', vocab=vocab, context_length=400)
    assert tokenizer.unknown_words(text) == unknown
    assert bool(unknown) == bool((tokenizer([text]) == tokenizer.unk_id).any())
    assert build(type='CLIPTokenizer').unknown_words(text) == []
