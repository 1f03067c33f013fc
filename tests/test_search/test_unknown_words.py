"""Words that a model's vocabulary lacks: found, and told in one line."""
from vop_mm.registry import TOKENIZERS
from vop_mm.search.unknown_words import describe, find


def test_one_line_names_some_words_and_cuts_long_ones():
    assert describe([]) == ''
    assert describe(['man', 'riding', 'bike']) == "the model doesn't know: man, riding, bike"
    line = describe([f'w{i}' for i in range(1000)])
    assert line.endswith('w8, w9 and 990 more') and len(line) < 80
    assert describe(['x' * 31, 'y' * 30]) == f"the model doesn't know: {'x' * 30}..., {'y' * 30}"
    assert len(describe(['z' * 2000] * 2000)) < 400


def test_a_tokenizer_that_does_not_say_knows_every_word():
    assert find(lambda texts: None, ['a man']) == []
    assert find(TOKENIZERS.build(dict(type='CLIPTokenizer')), 'a man riding a bike') == []


def test_words_of_several_texts_are_named_once(tmp_path):
    (tmp_path / 'vocab.txt').write_text('a\nred\n')
    tokenizer = TOKENIZERS.build(dict(type='WordTokenizer', vocab=tmp_path / 'vocab.txt'))
    assert find(tokenizer, ['a man', 'red', 'a bike, a man']) == ['man', 'bike']
    assert find(tokenizer, 'a man') == ['man']
